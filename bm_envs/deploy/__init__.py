"""Running a tracking policy outside the training environments: on a robot, or a stand-in for one.

`controller` turns sensor readings into motor commands and knows no simulator; `estimator` tells it
where the base is. `robot` is a G1 in MuJoCo that takes such commands and gives such readings;
`unitree` carries both over Unitree's low-level DDS topics. Nothing of the environments (`tasks`,
`backends`) is used: this is the control loop a second time, from what a policy file says of itself.
"""
