"""What others publish for the recordings that are evaluated, as far as it can be put beside our figures."""

from collections.abc import Mapping
from dataclasses import dataclass

from tidewatch.protocols import Benchmark


@dataclass(frozen=True, slots=True)
class Published:
    """A table: what its columns are, a detector a row, ours from our figures, and what to know before comparing."""

    columns: tuple[str, ...]
    ours: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]
    note: str


PUBLISHED: Mapping[Benchmark, Published] = {
    Benchmark.SKAB: Published(
        ("causal", "F1", "FAR %", "MAR %"),
        ("yes", "{f1:.2f}", "{far:.1f}", "{mar:.1f}"),
        {
            "Conv-AE": ("no", "0.78", "13.6", "28.0"),
            "MSET": ("yes", "0.78", "39.7", "14.1"),
            "T² + Q (PCA)": ("yes", "0.76", "26.6", "24.9"),
            "LSTM-AE": ("no", "0.74", "30.0", "25.9"),
            "isolation forest": ("yes", "0.29", "2.6", "82.9"),
        },
        "Katser & Kozitsin 2020, on all 34 experiments. To alarm always gives F1 0.70: it counts beside FAR alone.",
    ),
    Benchmark.SMD: Published(
        ("average precision",),
        ("{ap:.3f}",),
        {"PCA error": ("0.515",)},
        "Sarfraz et al. 2024 (QuoVadisTAD), 28 machines, without point adjustment; chooses how it normalises by the "
        "labels of each machine. Figures with point adjustment cannot be compared.",
    ),
    Benchmark.NAB: Published(
        ("standard profile",),
        ("{score:.1f}",),
        {
            "ARTime": ("73.9",),
            "CAD OSE": ("69.8",),
            "Numenta HTM": ("69.5",),
            "KNN-CAD": ("62.6",),
            "earthgecko Skyline": ("51.3",),
            "relative entropy": ("50.7",),
            "Random Cut Forest": ("48.2",),
            "Twitter ADVec": ("39.2",),
            "windowed Gaussian": ("32.8",),
            "random": ("18.0",),
            "null": ("0",),
        },
        "Numenta Anomaly Benchmark (results/final_results.json), on 32 of its series at the threshold published for "
        "all 58.",
    ),
}
"""None for ASD, whose published figures are point-adjusted, nor for Microsoft's series, for which there are none."""
