"""How the threads of a process wait for each other. It counts where it is said before torch is imported."""

import os


def sleep_while_waiting() -> None:
    """Lets threads that wait sleep, in this process and in those that it starts; what the user has set stays.

    By default they spin. Beside other work on the cores a spinning thread keeps the one that it waits for from
    running, and a step takes 3 to 10 times as long. The results are the same bits.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
