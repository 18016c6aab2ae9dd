/* Faults at the system calls that write: loaded before libc (LD_PRELOAD), told by faults_arm() what to do at which call.

   Counted are calls that change something below one folder. At call number `at`, counted from 1:
     KILL_BEFORE, KILL_AFTER   the process dies before or after it
     KILL_WITHIN               half of the bytes are written, then the process dies
     FULL                      from this call on the disk is full: what needs room fails with ENOSPC
     BROKEN                    this call alone fails with EIO
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL_BEFORE, KILL_AFTER, KILL_WITHIN, FULL, BROKEN };

static char folder[PATH_MAX];
static size_t length;
static int mode, at, count;
static char writes[1 << 16]; /* whether a call was one that can be cut in the middle */

void faults_arm(const char *root, int number, int what) {
    length = strlen(strncpy(folder, root, sizeof folder - 1));
    at = number;
    mode = what;
    count = 0;
}

int faults_count(void) { return count; }

int faults_is_write(int number) { return writes[number % (int)sizeof writes]; }

static int below(const char *path) { return length && path && strncmp(path, folder, length) == 0; }

static int below_fd(int fd) {
    char link[64], path[PATH_MAX];
    ssize_t n;
    if (!length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

/* Paths of calls with a folder's descriptor: relative ones count as what the descriptor is. */
static int below_at(int fd, const char *path) {
    return path && path[0] == '/' ? below(path) : fd == AT_FDCWD ? 0 : below_fd(fd);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    pause();
}

/* Whether the call fails now, with errno; the process may not come back. */
static int fails(int needs_room) {
    count++;
    if (mode == FULL && count >= at && needs_room) {
        errno = ENOSPC;
        return 1;
    }
    if (count != at) return 0;
    if (mode == KILL_BEFORE) die();
    if (mode == BROKEN) {
        errno = EIO;
        return 1;
    }
    return 0;
}

static void after(void) {
    if (count == at && mode == KILL_AFTER) die();
}

#define REAL(type, name, ...)                                            \
    static type (*real)(__VA_ARGS__);                                    \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define WATCHED(is_ours, needs_room, call)                               \
    int ours = is_ours, saved;                                           \
    if (ours && fails(needs_room)) return -1;                            \
    __typeof__(call) result = call;                                      \
    saved = errno;                                                       \
    if (ours) after();                                                   \
    errno = saved;                                                       \
    return result

#define WRITES(flags) (((flags) & O_CREAT) || ((flags) & O_TRUNC))

static mode_t permissions(int flags, va_list *rest) { return flags & O_CREAT ? va_arg(*rest, mode_t) : 0; }

#define OPEN(name)                                                       \
    int name(const char *path, int flags, ...) {                         \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mask = permissions(flags, &rest);                         \
        va_end(rest);                                                    \
        REAL(int, #name, const char *, int, ...);                        \
        WATCHED(WRITES(flags) && below(path), 1, real(path, flags, mask)); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                     \
    int name(int fd, const char *path, int flags, ...) {                 \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mask = permissions(flags, &rest);                         \
        va_end(rest);                                                    \
        REAL(int, #name, int, const char *, int, ...);                   \
        WATCHED(WRITES(flags) && below_at(fd, path), 1, real(fd, path, flags, mask)); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *bytes, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int ours = below_fd(fd);
    if (ours && fails(1)) return -1;
    if (ours) writes[count % (int)sizeof writes] = 1;
    if (ours && count == at && mode == KILL_WITHIN) {
        real(fd, bytes, n / 2);
        die();
    }
    ssize_t result = real(fd, bytes, n);
    int saved = errno;
    if (ours) after();
    errno = saved;
    return result;
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    WATCHED(below_fd(fd), 1, real(fd, parts, n));
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    WATCHED(below_fd(fd), 1, real(fd));
}

int ftruncate64(int fd, off64_t n) {
    REAL(int, "ftruncate64", int, off64_t);
    WATCHED(below_fd(fd), 0, real(fd, n));
}

int ftruncate(int fd, off_t n) {
    REAL(int, "ftruncate", int, off_t);
    WATCHED(below_fd(fd), 0, real(fd, n));
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    WATCHED(below(to), 0, real(from, to));
}

int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    WATCHED(below_at(b, to), 0, real(a, from, b, to));
}

int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    WATCHED(below_at(b, to), 0, real(a, from, b, to, flags));
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    WATCHED(below(path), 0, real(path));
}

int unlinkat(int fd, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    WATCHED(below_at(fd, path), 0, real(fd, path, flags));
}

int mkdir(const char *path, mode_t mask) {
    REAL(int, "mkdir", const char *, mode_t);
    WATCHED(below(path), 1, real(path, mask));
}

int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    WATCHED(below(path), 0, real(path));
}

int chmod(const char *path, mode_t mask) {
    REAL(int, "chmod", const char *, mode_t);
    WATCHED(below(path), 0, real(path, mask));
}
