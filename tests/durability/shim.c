/* LD_PRELOAD: records what a process writes to its data files, when a sync returns, and what it sends.
 *
 * TAILRACE_SHIM_RECORD   file that gets the events (see struct event), in the order in which they happened
 * TAILRACE_SHIM_CONTROL  file read before each fdatasync: "delay N" sleeps N ms, "eio" fails with EIO
 *
 * A write is recorded before it is made and again when it has returned, a sync when it has returned,
 * a send before it is made (and then how much of it was taken): so an acknowledgement that stands behind a sync in the record left after it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { WRITE_BEGIN = 1, WRITE_END = 2, SYNC_END = 3, SEND = 4, SYNC_BEGIN = 5, SENT = 6 };
enum { DATA_FILE = 1, DURABLE_ON_RETURN = 2, FDS = 65536 };

struct event {
    uint64_t monotonic_ns;
    uint32_t kind;
    uint32_t fd;
    uint64_t offset;
    uint64_t length;
    uint32_t durable; /* the file was opened with O_DSYNC or O_SYNC */
    uint32_t ok;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int record_fd = -1;
static const char *control;
static unsigned char files[FDS];

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("TAILRACE_SHIM_RECORD");
    control = getenv("TAILRACE_SHIM_CONTROL");
    if (path) record_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(const void *data, size_t length) {
    const char *at = data;
    while (length) {
        ssize_t n = syscall(SYS_write, record_fd, at, length);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) abort();
        at += n;
        length -= n;
    }
}

static void record(enum kind kind, int fd, uint64_t offset, const struct iovec *parts, int count, int ok) {
    if (record_fd < 0) return;
    int saved = errno;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct event event = {(uint64_t)now.tv_sec * 1000000000 + now.tv_nsec, kind, fd, offset, 0, 0, ok};
    event.durable = fd >= 0 && fd < FDS && (files[fd] & DURABLE_ON_RETURN);
    for (int i = 0; i < count; i++) event.length += parts[i].iov_len;
    pthread_mutex_lock(&lock);
    put(&event, sizeof event);
    for (int i = 0; i < count; i++) put(parts[i].iov_base, parts[i].iov_len);
    pthread_mutex_unlock(&lock);
    errno = saved;
}

static int watched(int fd) { return fd >= 0 && fd < FDS && (files[fd] & DATA_FILE); }

static int opened(int fd, const char *path, int flags) {
    if (fd >= 0 && fd < FDS) {
        size_t n = strlen(path);
        files[fd] = n >= 8 && !strcmp(path + n - 8, "data.mdb") ? DATA_FILE : 0;
        if (flags & O_DSYNC) files[fd] |= DURABLE_ON_RETURN;
    }
    return fd;
}

#define OPEN(name)                                                         \
    int name(const char *path, int flags, ...) {                          \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        mode_t mode = va_arg(rest, mode_t);                               \
        va_end(rest);                                                     \
        int (*next)(const char *, int, ...) = real(#name);                \
        return opened(next(path, flags, mode), path, flags);              \
    }
OPEN(open)
OPEN(open64)

static ssize_t written(int fd, uint64_t offset, const struct iovec *parts, int count, ssize_t result) {
    record(WRITE_END, fd, offset, NULL, 0, result >= 0);
    return result;
}

#define PWRITE(name)                                                                       \
    ssize_t name(int fd, const void *data, size_t length, off64_t offset) {               \
        ssize_t (*next)(int, const void *, size_t, off64_t) = real(#name);                \
        struct iovec part = {(void *)data, length};                                       \
        if (!watched(fd)) return next(fd, data, length, offset);                          \
        record(WRITE_BEGIN, fd, offset, &part, 1, 1);                                     \
        return written(fd, offset, &part, 1, next(fd, data, length, offset));             \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define PWRITEV(name)                                                                      \
    ssize_t name(int fd, const struct iovec *parts, int count, off64_t offset) {          \
        ssize_t (*next)(int, const struct iovec *, int, off64_t) = real(#name);           \
        if (!watched(fd)) return next(fd, parts, count, offset);                          \
        record(WRITE_BEGIN, fd, offset, parts, count, 1);                                 \
        return written(fd, offset, parts, count, next(fd, parts, count, offset));         \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t (*next)(int, const struct iovec *, int) = real("writev");
    if (!watched(fd)) return next(fd, parts, count);
    uint64_t offset = lseek(fd, 0, SEEK_CUR);
    record(WRITE_BEGIN, fd, offset, parts, count, 1);
    return written(fd, offset, parts, count, next(fd, parts, count));
}

ssize_t write(int fd, const void *data, size_t length) {
    ssize_t (*next)(int, const void *, size_t) = real("write");
    if (!watched(fd)) return next(fd, data, length);
    struct iovec part = {(void *)data, length};
    uint64_t offset = lseek(fd, 0, SEEK_CUR);
    record(WRITE_BEGIN, fd, offset, &part, 1, 1);
    return written(fd, offset, &part, 1, next(fd, data, length));
}

/* 1 if the sync is to fail. */
static int disturbed(void) {
    char text[64] = {0};
    int fd, failing = 0;
    if (!control || (fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0)) < 0) return 0;
    if (syscall(SYS_read, fd, text, sizeof text - 1) > 0) {
        if (!strncmp(text, "delay ", 6)) usleep(atoi(text + 6) * 1000);
        failing = !strncmp(text, "eio", 3);
    }
    syscall(SYS_close, fd);
    return failing;
}

#define SYNC(name)                                                         \
    int name(int fd) {                                                     \
        int (*next)(int) = real(#name);                                    \
        if (!watched(fd)) return next(fd);                                 \
        record(SYNC_BEGIN, fd, 0, NULL, 0, 1);                             \
        int failing = disturbed();                                         \
        int result = failing ? -1 : next(fd);                              \
        if (failing) errno = EIO;                                          \
        record(SYNC_END, fd, 0, NULL, 0, result == 0);                     \
        return result;                                                     \
    }
SYNC(fdatasync)
SYNC(fsync)

ssize_t send(int fd, const void *data, size_t length, int flags) {
    ssize_t (*next)(int, const void *, size_t, int) = real("send");
    struct iovec part = {(void *)data, length};
    record(SEND, fd, 0, &part, 1, 1);
    ssize_t result = next(fd, data, length, flags);
    record(SENT, fd, result > 0 ? result : 0, NULL, 0, result >= 0);
    return result;
}
