# cython: language_level=3, binding=False
"""The end of a process whose parent has ended, whatever it does then: in native code, or in a loop without an end.

The system sends a signal at the parent's end (prctl(2), PR_SET_PDEATHSIG), and its handler here, which is C and waits
for no interpreter, sets an alarm that nobody hears. Until it rings, the process may end as it likes to.

It is the end of the thread that has forked which counts: a supervisor forks in its main thread. A child of this process
does not have it, nor a process that becomes another user afterwards.

What must not live here: how a process notices its parent's end where it can (worker/main.py).
"""

cdef extern from *:
    """
    #include <errno.h>
    #include <signal.h>
    #include <string.h>
    #include <unistd.h>
    #ifdef __linux__
    #include <sys/prctl.h>
    #endif

    static volatile sig_atomic_t tg_seconds;

    static void tg_orphaned(int number)
    {
        int saved = errno;
        struct sigaction default_action;
        memset(&default_action, 0, sizeof default_action);
        default_action.sa_handler = SIG_DFL;
        sigaction(SIGALRM, &default_action, NULL);
        alarm((unsigned int)tg_seconds);
        errno = saved;
    }

    /* Whether the system knows how. */
    static int tg_end_with_parent(long parent, int seconds)
    {
    #ifdef PR_SET_PDEATHSIG
        int number = SIGRTMIN + 4;
        struct sigaction action;
        tg_seconds = seconds;
        memset(&action, 0, sizeof action);
        action.sa_handler = tg_orphaned;
        action.sa_flags = SA_RESTART;
        if (sigaction(number, &action, NULL) || prctl(PR_SET_PDEATHSIG, (unsigned long)number, 0UL, 0UL, 0UL))
            return 0;
        /* It may have ended before; 0 is a parent in another PID namespace, whose number is not known here. */
        if (getppid() != parent && getppid() != 0)
            tg_orphaned(number);
        return 1;
    #else
        (void)parent, (void)seconds;
        return 0;
    #endif
    }
    """
    bint tg_end_with_parent(long parent, int seconds)


def end_with_parent(long parent, int seconds):
    if seconds < 1:
        raise ValueError("an alarm rings after a second or more")
    return tg_end_with_parent(parent, seconds)
