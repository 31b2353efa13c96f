"""Writes the models that MLServer serves: a scaler and a one-class SVM each, trained on rows of features.

Runs in MLServer's environment, for scikit-learn's pickles are of one version: ``mlserver_models.py ROWS.npz FOLDER``.
"""

import json
import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM


def main() -> None:
    """Train one model for each array of the file."""
    rows, folder = np.load(sys.argv[1]), Path(sys.argv[2])
    for name, features in rows.items():
        home = folder / name
        home.mkdir(parents=True)
        pipeline = make_pipeline(StandardScaler(), OneClassSVM(nu=0.01, gamma=0.01, tol=1e-8))
        joblib.dump(pipeline.fit(features), home / "model.joblib")
        about = {
            "name": name,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": "./model.joblib", "version": "v1"},
        }
        (home / "model-settings.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main()
