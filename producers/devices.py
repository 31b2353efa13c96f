"""What the simulated devices are: types, their metrics, and how each metric follows load and surroundings."""

from dataclasses import dataclass

import numpy as np

from producers.batch import Floats

LOAD_SWING = 0.1
"""Standard deviation of the short-term load, as a fraction of full load."""
AMBIENT_SWING = 0.3
"""Standard deviation of the short-term ambient temperature, in K."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: ``typical`` at mean load, change per unit of load, per kelvin of ambient, noise, decimals."""

    name: str
    typical: float
    load: float
    ambient: float
    noise: float
    decimals: int = 3

    @property
    def spread(self) -> float:
        """Short-term standard deviation: load swing, ambient swing and noise together. The unit of magnitudes."""
        return float(np.sqrt((self.load * LOAD_SWING) ** 2 + (self.ambient * AMBIENT_SWING) ** 2 + self.noise**2))


@dataclass(frozen=True, slots=True)
class DeviceType:
    """One kind of device and its metrics."""

    name: str
    metrics: tuple[Metric, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names, in order."""
        return tuple(metric.name for metric in self.metrics)

    def column(self, field: str) -> Floats:
        """One field of every metric, shape ``(m,)``."""
        return np.array([getattr(metric, field) for metric in self.metrics], dtype=np.float64)


PUMP = DeviceType(
    "pump",
    (
        Metric("flow", 120.0, 90.0, 0.0, 0.9),
        Metric("pressure", 6.2, 4.0, 0.0, 0.05),
        Metric("suction_pressure", 1.8, -0.9, 0.0, 0.015),
        Metric("current", 21.0, 16.0, 0.0, 0.2),
        Metric("power", 11.0, 9.5, 0.0, 0.1),
        Metric("vibration", 2.4, 1.8, 0.0, 0.06),
        Metric("bearing_temperature", 58.0, 22.0, 0.8, 0.3),
        Metric("speed", 1480.0, -35.0, 0.0, 0.6, 1),
    ),
)
MOTOR = DeviceType(
    "motor",
    (
        Metric("current", 42.0, 34.0, 0.0, 0.4),
        Metric("torque", 95.0, 80.0, 0.0, 1.0),
        Metric("speed", 1470.0, -45.0, 0.0, 0.8, 1),
        Metric("winding_temperature", 82.0, 36.0, 0.9, 0.5),
        Metric("bearing_temperature", 61.0, 20.0, 0.9, 0.3),
        Metric("vibration", 1.9, 1.4, 0.0, 0.05),
        Metric("power_factor", 0.84, 0.22, 0.0, 0.003, 4),
    ),
)
FAN = DeviceType(
    "fan",
    (
        Metric("airflow", 14_500.0, 11_000.0, 0.0, 120.0, 1),
        Metric("static_pressure", 820.0, 700.0, 0.0, 8.0, 2),
        Metric("current", 13.5, 11.0, 0.0, 0.12),
        Metric("speed", 960.0, 420.0, 0.0, 4.0, 1),
        Metric("vibration", 3.1, 2.2, 0.0, 0.08),
        Metric("outlet_temperature", 27.0, 6.0, 1.0, 0.1),
    ),
)
CHILLER = DeviceType(
    "chiller",
    (
        Metric("supply_temperature", 6.8, 2.4, 0.05, 0.03),
        Metric("return_temperature", 12.4, 7.5, 0.1, 0.06),
        Metric("condenser_pressure", 9.6, 5.0, 0.12, 0.06),
        Metric("evaporator_pressure", 3.4, -1.5, 0.02, 0.02),
        Metric("power", 182.0, 150.0, 1.2, 1.6, 2),
        Metric("flow", 74.0, 42.0, 0.0, 0.5),
        Metric("oil_temperature", 49.0, 18.0, 0.5, 0.2),
        Metric("current", 268.0, 215.0, 1.6, 2.4, 2),
    ),
)
COMPRESSOR = DeviceType(
    "compressor",
    (
        Metric("discharge_pressure", 7.4, 3.2, 0.0, 0.04),
        Metric("discharge_temperature", 88.0, 40.0, 1.1, 0.5),
        Metric("intake_temperature", 23.0, 3.0, 1.0, 0.08),
        Metric("oil_pressure", 3.9, -1.6, 0.0, 0.02),
        Metric("current", 74.0, 62.0, 0.0, 0.7),
        Metric("vibration", 4.2, 3.0, 0.0, 0.1),
        Metric("flow", 610.0, 480.0, 0.0, 5.0, 2),
    ),
)

DEVICE_TYPES = (PUMP, MOTOR, FAN, CHILLER, COMPRESSOR)
"""Device number ``n`` of a fleet is of type ``n mod 5``."""
