"""What trainers share (extra `train`): all that is bookkeeping, and mathematics with two users.

    run           settings, record, clock, when to evaluate, to save and to stop
    folder        a run's folder: who holds it, its checkpoint
    log           figures: metrics.jsonl, TensorBoard, the bar, Weights & Biases
    checks        settings that are refused
    tracker       what a run of a tracker has beside that: protocols, export, video
    robots        the vector environment as a trainer of trackers sees it
    collecting    the samples of an iteration, and the robots in mid-episode
    networks      the symmetric network behind its normalizer, and what trackers make of it
    states        what a checkpoint holds of networks, optimizers, generators and environments
    gaussian      densities and divergences of Gaussian policies
    returns       advantages, mini-batches, means of figures
    evaluation    the protocols during training
    processes     the processes of a `torchrun`, and the thread that learns meanwhile
    video         a tracker as an MP4

Of learning in a model of the robot:

    replay_buffer past control steps, and the robots that add to them
    world_model   what a control step does, by a network and integration
    kinematics    poses of links in torch, with gradients
    imagination   the tracking task inside a world model
    graphs        the kernels of an update as a CUDA graph

Nothing here calls a script back. Losses, curriculum and loop stand in `algos/`, and so does every
`backward` and every step of an optimizer.
"""
