/* System calls that fail when a test says so, put before libc's by LD_PRELOAD: only those that poller, stream and listener
 * make, told by their flags. What must not live here: which should fail (faults.py). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static const char *names[] = {"recv", "send", "sendmsg", "accept4", "epoll_ctl", "epoll_wait", "epoll_create1", "shutdown"};
enum { RECV, SEND, SENDMSG, ACCEPT4, EPOLL_CTL, EPOLL_WAIT, EPOLL_CREATE1, SHUTDOWN, COUNT };
static int after[COUNT], errors[COUNT], times[COUNT], made[COUNT];

static int index_of(const char *name) {
    for (int i = 0; i < COUNT; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

/* From now on, `skipped` calls succeed, and then `count` fail with `error`. */
void fault_arm(const char *name, int skipped, int count, int error) {
    int i = index_of(name);
    after[i] = skipped, times[i] = count, errors[i] = error;
}

/* How often it was called. */
int fault_calls(const char *name) { return made[index_of(name)]; }

static int fails(int i) {
    made[i]++;
    if (times[i] == 0 || after[i]-- > 0) return 0;
    after[i] = 0;
    times[i]--;
    errno = errors[i];
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t recv(int fd, void *data, size_t size, int flags) {
    return flags & MSG_DONTWAIT && fails(RECV) ? -1 : REAL(recv)(fd, data, size, flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    return flags & MSG_DONTWAIT && fails(SEND) ? -1 : REAL(send)(fd, data, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    return flags & MSG_DONTWAIT && fails(SENDMSG) ? -1 : REAL(sendmsg)(fd, message, flags);
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    return fails(ACCEPT4) ? -1 : REAL(accept4)(fd, address, size, flags);
}

int epoll_ctl(int set, int operation, int fd, struct epoll_event *event) {
    int ours = operation == EPOLL_CTL_ADD && event->events & EPOLLET;
    return ours && fails(EPOLL_CTL) ? -1 : REAL(epoll_ctl)(set, operation, fd, event);
}

int epoll_wait(int set, struct epoll_event *events, int most, int timeout) {
    return most == 256 && fails(EPOLL_WAIT) ? -1 : REAL(epoll_wait)(set, events, most, timeout);
}

int epoll_create1(int flags) { return fails(EPOLL_CREATE1) ? -1 : REAL(epoll_create1)(flags); }

int shutdown(int fd, int how) { return fails(SHUTDOWN) ? -1 : REAL(shutdown)(fd, how); }
