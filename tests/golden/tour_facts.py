"""Numbers of the public walking benchmark, typed from its sources or made by another program.

Source: rhoyn/teleop-walking-benchmark, README.md at 0b2ea7a.
"""

# Words 0 to 3 and 999 of `std::mt19937(std::seed_seq{run, stream})`, by g++ 13's libstdc++.
WORDS = {
    (0, 2): (3825457058, 706492411, 2134599173, 1489500560, 2411809561),
    (0, 3): (3539355048, 3588981988, 457394217, 3561072316, 2203426708),
    (0, 4): (3010783125, 3391877580, 3513785175, 528077794, 3624532072),
    (1, 2): (3232623227, 3218984147, 1585538226, 694568912, 2137421810),
    (7, 3): (351790320, 3488955865, 1077926635, 3160543647, 919037410),
    (4000000000, 4): (3053466714, 3596941114, 2252791415, 73105862, 1115082813),
}
# Run 0's left arm over 90 s, rad: shoulder pitch, roll, yaw, elbow, from another implementation.
ARM_RANGES = ((-1.7, 0.2), (0.2, 2.0), (-2.2, 0.2), (-0.6, 1.6))
MEAN_STEP, MEAN_TURN = 0.68, 90.0  # m and degrees between successive waypoints
FIRST_PUNCH, LAST_PUNCH = (83.0, 167.0), (250.0, 500.0)  # N
PUNCH_S = 0.08
SEGMENT_S, SEGMENTS = 5.0, 18
HIT = {"arm": 14, "leg": 12, "waist": 3}  # of 29 joints
