"""What the processes of a daemon say to each other, and to commands; each wire word once, below all that speak it.

    pipe                between the supervisor and a child: Report upwards, Command downwards
    control_protocol    on the control socket, from commands to the supervisor
    exit_status         how a process ends, and how long that may take
    handover_state      from a supervisor to the program that replaces it, in an upgrade in place

What must not live here: what any side does about a word.
"""
