/* System calls on sockets that never wait, for poller.pyx, stream.pyx and listener.pyx. Each returns what the call did, or
 * minus errno; one that a signal interrupts is made again, for nothing would tell that it is due. What must not live here:
 * anything that knows a Python object. */
#ifndef TIDEGATE_STREAM_H
#define TIDEGATE_STREAM_H
#include <Python.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/epoll.h>
#define TG_STREAMS 1
#else /* Elsewhere all of it compiles, and the event loop's transports are used. */
#define TG_STREAMS 0
enum { EPOLLIN = 1, EPOLLPRI = 2, EPOLLOUT = 4, EPOLLRDHUP = 8, EPOLLET = 16 };
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
typedef union {
    void *ptr;
} epoll_data_t;
struct epoll_event {
    uint32_t events;
    epoll_data_t data;
};
static inline int tg_none(void) {
    errno = ENOSYS;
    return -1;
}
#define epoll_create1(flags) tg_none()
#define epoll_ctl(set, what, descriptor, event) tg_none()
#define epoll_wait(set, events, count, timeout) tg_none()
#define accept4(descriptor, address, size, flags) tg_none()
#endif

#define TG_EVENTS 256 /* that one look at the set brings at most */
#define TG_PIECES 64  /* of a write buffer, that one system call takes */

static inline int tg_new_set(void) {
    int n = epoll_create1(EPOLL_CLOEXEC);
    return n < 0 ? -errno : n;
}

/* Has the kernel report `events` of a descriptor from now on, or with 0 nothing any more. */
static inline int tg_watch(int set, int descriptor, uint32_t events, void *data) {
    struct epoll_event e;
    memset(&e, 0, sizeof e);
    e.events = events;
    e.data.ptr = data;
    return epoll_ctl(set, events ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, descriptor, &e) < 0 ? -errno : 0;
}

static inline int tg_wait(int set, struct epoll_event *events) {
    int n = epoll_wait(set, events, TG_EVENTS, 0);
    return n < 0 ? -errno : n;
}

static inline Py_ssize_t tg_receive(int descriptor, void *data, size_t size) {
    Py_ssize_t n;
    do n = recv(descriptor, data, size, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static inline Py_ssize_t tg_receive_pieces(int descriptor, struct iovec *pieces, size_t count) {
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = pieces;
    message.msg_iovlen = count;
    Py_ssize_t n;
    do n = recvmsg(descriptor, &message, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static inline Py_ssize_t tg_write(int descriptor, const void *data, size_t size) {
    Py_ssize_t n;
    do n = send(descriptor, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static inline Py_ssize_t tg_write_pieces(int descriptor, struct iovec *pieces, size_t count) {
    struct msghdr message;
    if (count == 1) return tg_write(descriptor, pieces->iov_base, pieces->iov_len);
    memset(&message, 0, sizeof message);
    message.msg_iov = pieces;
    message.msg_iovlen = count;
    Py_ssize_t n;
    do n = sendmsg(descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* An address of TCP, in as little room as it takes; of other families only that it is none. */
typedef struct {
    uint8_t family, bytes[16];
    uint16_t port;
    uint32_t flow, scope;
} tg_address;

static inline void tg_take_address(tg_address *to, const struct sockaddr_storage *from) {
    const struct sockaddr_in *four = (const struct sockaddr_in *)from;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)from;
    to->family = (uint8_t)from->ss_family;
    if (from->ss_family == AF_INET) {
        memcpy(to->bytes, &four->sin_addr, 4);
        to->port = ntohs(four->sin_port);
    } else if (from->ss_family == AF_INET6) {
        memcpy(to->bytes, &six->sin6_addr, 16);
        to->port = ntohs(six->sin6_port);
        to->flow = ntohl(six->sin6_flowinfo);
        to->scope = six->sin6_scope_id;
    }
}

static inline void tg_local_address(int descriptor, tg_address *to) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (getsockname(descriptor, (struct sockaddr *)&address, &size) == 0) tg_take_address(to, &address);
}

/* The next connection in the queue of a listening socket, and whose it is. */
static inline int tg_accept(int descriptor, tg_address *peer) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    int n = accept4(descriptor, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (n < 0) return -errno;
    tg_take_address(peer, &address);
    return n;
}

static inline int tg_end_of_writing(int descriptor) { return shutdown(descriptor, SHUT_WR) < 0 ? -errno : 0; }
#endif
