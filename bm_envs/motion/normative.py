"""How people walk and run: published joint angles over the gait cycle, with their source.

A cycle is from one contact of a foot to the next of the same foot. Angles are of that side, in
degrees: hip and knee flexion, ankle dorsiflexion, hip adduction and "this side up" or "forward" are
positive. A knee of 0 is straight, an ankle of 0 is a foot at right angles to the shank.

`SLOW` and `FREE` are means of 83 typically developing children and adolescents, walking slowly and
at the speed that they chose: Schwartz, Rozumalski and Trost, *The effect of walking speed on the
gait of typically developing children*, Journal of Biomechanics 41 (2008), 1639-1650, supplementary
table "Joint Rotations", every second of its rows, to 0.1 degrees; foot off from its table "Cycle
Events". Their joint angles are near those of adults at equal dimensionless speed.

`RUN` is no published table. It is drawn by hand through published figures of running at about 2.5
m/s: a knee of about 20 degrees at contact, 40 to 45 in stance, 20 to 25 at toe-off and 90 in swing
(Novacheck, *The biomechanics of running*, Gait and Posture 7 (1998), 77-95); feet on the ground
for 39 % of the cycle, 162 steps a minute (Fukuchi, Fukuchi and Duarte, PeerJ 5 (2017), e3298, and
its data). Hips are there so that a foot in stance is carried back at an even speed.

Cadence of walking: Winiarski, Pietraszewska and Pietraszewski, BioMed Research International 2019,
9232430: 101, 116 and 128 steps a minute at 1.04, 1.32 and 1.62 m/s of women 1.69 m tall. Arms: a
shoulder swings through about 30 degrees, furthest back, by 24, at contact of its own side's foot
(Murray, Sepic and Barnard, Physical Therapy 47 (1967), as told by Perry, *Gait Analysis*, 1992).
Who walks has nearly straight elbows, who runs has them bent to about 90 degrees (Yegian et al.,
Journal of Experimental Biology 222 (2019), jeb197228).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curves:
    """Angles of one side over a cycle, degrees; each tuple is evenly spaced from 0 on."""

    hip: tuple[float, ...]
    """Flexion of the thigh against the pelvis."""
    knee: tuple[float, ...]
    ankle: tuple[float, ...]
    tilt: tuple[float, ...]
    """Forward tilt of the pelvis. Its mean is how the pelvis was measured."""
    obliquity: tuple[float, ...]
    """This side of the pelvis up."""
    rotation: tuple[float, ...]
    """This side of the pelvis forward."""
    adduction: tuple[float, ...]
    """Of the hip, towards the middle."""
    foot_off: float
    """Share of the cycle at which this foot leaves the ground."""

    def at(self, name: str, phase: np.ndarray) -> np.ndarray:
        """Degrees of the curve `name` at shares of the cycle, by its Fourier series, periodic."""
        values = np.asarray(getattr(self, name), np.float64)
        terms = np.fft.rfft(values) / len(values)
        angle = 2 * np.pi * np.asarray(phase, np.float64)[..., None] * np.arange(len(terms))
        weight = np.full(len(terms), 2.0)
        weight[0] = 1.0
        if len(values) % 2 == 0:
            weight[-1] = 1.0
        return (weight * (terms.real * np.cos(angle) - terms.imag * np.sin(angle))).sum(-1)

    def thigh(self, phase: np.ndarray) -> np.ndarray:
        """Degrees of the thigh before the vertical."""
        return self.at("hip", phase) - self.at("tilt", phase)

    def foot_pitch(self, phase: np.ndarray) -> np.ndarray:
        """Degrees by which the toes point up."""
        return self.thigh(phase) - self.at("knee", phase) + self.at("ankle", phase)


# fmt: off
SLOW = Curves(
    hip=(
        32.8, 31.7, 29.8, 26.6, 23.0, 19.5, 16.1, 12.9, 10.0, 7.2, 4.5, 1.9, -0.4,
        -2.1, -2.2, 0.5, 6.5, 13.7, 20.3, 25.7, 29.9, 32.8, 34.2, 34.1, 33.4,
    ),
    knee=(
        4.6, 7.9, 11.5, 12.7, 12.1, 11.0, 9.9, 9.0, 8.2, 7.7, 7.5, 8.0, 9.8,
        13.2, 19.2, 28.8, 40.8, 50.9, 55.2, 53.1, 46.0, 35.3, 22.8, 11.0, 4.2,
    ),
    ankle=(
        -2.5, -6.3, -5.5, -2.5, 0.2, 2.5, 4.5, 6.4, 8.3, 10.1, 11.8, 13.1, 13.8,
        12.8, 8.1, -2.3, -12.4, -12.0, -5.6, 0.0, 3.2, 3.8, 2.1, -0.3, -1.6,
    ),
    tilt=(
        11.5, 11.3, 11.0, 10.7, 10.6, 10.7, 10.7, 10.7, 10.9, 11.2, 11.4, 11.5, 11.5,
        11.4, 11.2, 10.8, 10.7, 10.7, 10.7, 10.7, 10.8, 11.0, 11.3, 11.5, 11.5,
    ),
    obliquity=(
        0.7, 1.2, 2.3, 2.9, 3.0, 2.4, 1.4, 0.4, -0.4, -0.7, -0.7, -0.6, -0.6,
        -0.9, -1.7, -2.6, -3.0, -2.8, -2.0, -0.9, 0.0, 0.6, 0.7, 0.6, 0.5,
    ),
    rotation=(
        3.0, 3.4, 3.0, 3.1, 3.3, 3.1, 2.6, 1.9, 1.3, 0.5, -0.5, -1.6, -2.6,
        -3.4, -3.4, -3.1, -3.4, -3.5, -3.1, -2.5, -1.8, -1.2, -0.3, 0.8, 1.9,
    ),
    adduction=(
        -0.9, 0.3, 2.4, 3.8, 4.4, 4.3, 3.9, 3.2, 2.7, 2.5, 2.5, 2.5, 2.1,
        1.1, -0.9, -3.6, -5.7, -6.3, -5.5, -4.2, -2.8, -1.8, -1.4, -1.4, -1.4,
    ),
    foot_off=0.62,
)
# fmt: on
# fmt: off
FREE = Curves(
    hip=(
        35.8, 35.5, 34.2, 31.1, 26.9, 22.5, 18.1, 13.6, 9.3, 5.3, 1.6, -1.7, -4.4,
        -5.8, -4.9, -0.9, 6.1, 14.1, 21.4, 27.4, 32.0, 35.1, 36.6, 36.5, 35.8,
    ),
    knee=(
        5.6, 10.9, 16.9, 19.3, 18.6, 16.5, 13.9, 11.3, 9.0, 7.2, 6.2, 6.8, 9.5,
        14.5, 22.6, 33.9, 46.3, 55.7, 59.1, 56.9, 49.8, 38.8, 25.5, 12.5, 4.6,
    ),
    ankle=(
        -2.1, -5.6, -4.1, -0.2, 2.9, 5.2, 6.8, 8.0, 9.1, 10.2, 11.1, 11.8, 11.5,
        8.4, -0.2, -13.8, -19.8, -14.7, -7.9, -2.4, 1.1, 2.5, 1.8, 0.1, -1.1,
    ),
    tilt=(
        12.2, 11.8, 11.2, 10.8, 10.7, 11.0, 11.4, 11.6, 11.8, 12.1, 12.4, 12.5, 12.2,
        11.9, 11.4, 10.8, 10.5, 10.7, 11.0, 11.4, 11.6, 11.8, 12.2, 12.4, 12.3,
    ),
    obliquity=(
        0.8, 1.5, 2.8, 3.8, 4.1, 3.4, 2.1, 0.8, -0.1, -0.5, -0.5, -0.3, -0.5,
        -1.0, -2.0, -3.3, -4.1, -3.9, -2.8, -1.5, -0.4, 0.2, 0.4, 0.3, 0.3,
    ),
    rotation=(
        4.4, 4.3, 3.6, 3.4, 3.6, 3.3, 2.6, 1.6, 0.5, -0.6, -1.9, -3.2, -4.1,
        -4.4, -3.9, -3.5, -3.6, -3.6, -3.1, -2.2, -1.2, -0.1, 1.1, 2.4, 3.6,
    ),
    adduction=(
        -1.6, 0.1, 2.6, 4.5, 5.2, 5.0, 4.4, 3.6, 2.9, 2.6, 2.4, 2.2, 1.4,
        -0.0, -2.3, -5.2, -7.0, -6.8, -5.6, -4.2, -3.1, -2.4, -2.2, -2.3, -2.4,
    ),
    foot_off=0.59,
)
# fmt: on
# fmt: off
RUN = Curves(
    hip=(
        27.0, 25.5, 24.0, 21.5, 17.0, 10.0, 1.0, -9.0, -16.0, -17.0, -11.0, -1.0, 9.0,
        18.0, 26.0, 32.0, 35.5, 36.0, 33.5, 29.5,
    ),
    knee=(
        18.0, 29.0, 38.0, 42.5, 42.0, 37.0, 30.0, 24.0, 23.0, 31.0, 45.0, 62.0, 77.0,
        87.0, 89.0, 82.0, 66.0, 44.0, 24.0, 14.5,
    ),
    ankle=(
        5.0, 9.0, 17.0, 22.5, 24.0, 20.0, 10.0, -5.0, -18.0, -20.0, -14.0, -7.0, -3.0,
        -1.0, 0.0, 1.0, 3.0, 5.0, 6.0, 6.0,
    ),
    tilt=(0.0,) * 20,
    obliquity=(
        0.5, 2.2, 3.6, 4.0, 3.4, 2.2, 1.0, 0.2, -0.2, -0.4, -0.5, -2.2, -3.6,
        -4.0, -3.4, -2.2, -1.0, -0.2, 0.2, 0.4,
    ),
    rotation=(
        2.0, 0.5, -1.2, -2.8, -4.2, -5.2, -5.6, -5.2, -4.2, -3.2, -2.0, -0.5, 1.2,
        2.8, 4.2, 5.2, 5.6, 5.2, 4.2, 3.2,
    ),
    adduction=(
        1.0, 4.0, 6.5, 7.0, 6.0, 4.5, 3.0, 1.5, 0.0, -2.0, -3.5, -4.0, -3.5,
        -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0,
    ),
    foot_off=0.394,
)
# fmt: on
