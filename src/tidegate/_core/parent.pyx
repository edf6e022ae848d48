# cython: language_level=3, binding=False
# cython: embedsignature=True, embedsignature.format=clinic
"""Ends a process after its parent has ended, whatever the process does then: native code, or an endless loop.

The system sends a signal at the parent's end (prctl(2), PR_SET_PDEATHSIG). Its handler is in C, so that it does not depend on
the interpreter, and sets an alarm, whose signal ends the process. Until then the process may end in an orderly way.

The signal is sent at the end of the thread that has forked: a supervisor forks in its main thread. Children of this process
do not inherit the setting, and a change of the user afterwards removes it.

What must not live here: how a process notices its parent's end in other ways (worker/main.py).
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

    /* Returns whether the system can do it. */
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
        /* The parent may have ended before; 0 is a parent in another PID namespace. */
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
    """Have this process killed so many seconds after its parent, with this process id, has ended.

    Return False if the system has no way to do that.
    """
    if seconds < 1:
        raise ValueError("an alarm rings after a second or more")
    return tg_end_with_parent(parent, seconds)
