/* Stands between a process and libc, counts the calls that change files under one folder, and spoils the N-th.
 *
 * Loaded by LD_PRELOAD; idle until faults_arm() is called. What is counted: opening to create or cut, writing, allocating,
 * truncating, syncing, renaming, linking, removing, making folders, changing modes. What goes around libc's entry points
 * (stdio's own writes, io_uring, shared writable maps) is not seen: the caller replays the log and compares it to the tree.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN = 1, WRITE, SYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, TRUNCATE, ALLOCATE, CHMOD };
enum fault { NONE, KILL, EIO_ONCE, EIO_ON, ENOSPC_ON, EDQUOT_ONCE, SHORT, SHORT_KILL };

/* One record of the log, before its two paths and its data. */
struct record {
    uint32_t kind, first_bytes, second_bytes, data_bytes;
    uint64_t inode, offset, length;
};

static char root[PATH_MAX];
static size_t root_bytes;
static int armed, fault, log_fd = -1;
static long at, counted, hits;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

void faults_arm(const char *folder, int which, long when, int log) {
    strncpy(root, folder, sizeof root - 1);
    root_bytes = strlen(root);
    fault = which, at = when, log_fd = log, counted = hits = 0, armed = 1;
}

void faults_disarm(void) { armed = 0; }
long faults_counted(void) { return counted; }
long faults_hits(void) { return hits; }

static int under(const char *path) {
    return !strncmp(path, root, root_bytes) && (path[root_bytes] == '/' || !path[root_bytes]);
}

static int path_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    return 1;
}

/* Absolute form of a path given to an *at call. */
static int resolve(int folder, const char *path, char *out) {
    if (!path) return 0;
    if (path[0] == '/') {
        if (strlen(path) >= PATH_MAX) return 0;
        strcpy(out, path);
        return 1;
    }
    char base[PATH_MAX];
    if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(folder, base)) return 0;
    return snprintf(out, PATH_MAX, "%s/%s", base, path) < PATH_MAX;
}

static int applies(enum kind kind, size_t bytes) {
    switch (fault) {
    case ENOSPC_ON:
    case EDQUOT_ONCE: return kind == OPEN || kind == WRITE || kind == MKDIR || kind == LINK || kind == ALLOCATE || kind == SYNC;
    case SHORT:
    case SHORT_KILL: return kind == WRITE && bytes > 1;
    default: return 1;
    }
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* What to do with this call: 0 let it be, an error number, or -1 for half of it. Holds the turn on return. */
static int enter(enum kind kind, size_t bytes) {
    pthread_mutex_lock(&turn);
    if (!applies(kind, bytes)) return 0;
    long number = ++counted;
    int persists = fault == EIO_ON || fault == ENOSPC_ON;
    if (fault == NONE || (persists ? number < at : number != at)) return 0;
    hits++;
    switch (fault) {
    case KILL: die(); return 0;
    case EIO_ONCE:
    case EIO_ON: return EIO;
    case ENOSPC_ON: return ENOSPC;
    case EDQUOT_ONCE: return EDQUOT;
    default: return -1;
    }
}

static void put(const void *bytes, size_t n) {
    const char *from = bytes;
    while (n) {
        long written = syscall(SYS_write, log_fd, from, n);
        if (written <= 0) die();
        from += written, n -= written;
    }
}

/* Note a call that succeeded, and let the next one through. */
static void leave(int ok, enum kind kind, const char *first, const char *second, uint64_t inode, uint64_t offset,
                  uint64_t length, const void *data, size_t data_bytes) {
    int kept = errno;
    if (ok && log_fd >= 0) {
        struct record r = {kind, strlen(first), second ? strlen(second) : 0, data_bytes, inode, offset, length};
        put(&r, sizeof r);
        put(first, r.first_bytes);
        if (second) put(second, r.second_bytes);
        if (data_bytes) put(data, data_bytes);
    }
    pthread_mutex_unlock(&turn);
    errno = kept;
}

static uint64_t inode_of(int fd) {
    struct stat s;
    return fstat(fd, &s) ? 0 : s.st_ino;
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

#define REFUSED(spoilt, kind, failure) \
    if (spoilt > 0) { \
        leave(0, kind, "", 0, 0, 0, 0, 0, 0); \
        errno = spoilt; \
        return failure; \
    }

/* ---- opening ---- */
#define MUTATES(flags) ((flags) & (O_CREAT | O_TRUNC) && ((flags) & O_TMPFILE) != O_TMPFILE)

#define OPENING(folder, call) \
    char full[PATH_MAX]; \
    if (!armed || !MUTATES(flags) || !resolve(folder, path, full) || !under(full)) return call; \
    int spoilt = enter(OPEN, 0); \
    REFUSED(spoilt, OPEN, -1) \
    int fd = call; \
    leave(fd >= 0, OPEN, full, 0, fd >= 0 ? inode_of(fd) : 0, 0, !!(flags & O_TRUNC), 0, 0); \
    return fd;

#define MODE \
    mode_t mode = 0; \
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) { MODE REAL(int, open, const char *, int, ...); OPENING(AT_FDCWD, real(path, flags, mode)) }
int open64(const char *path, int flags, ...) { MODE REAL(int, open64, const char *, int, ...); OPENING(AT_FDCWD, real(path, flags, mode)) }
int openat(int folder, const char *path, int flags, ...) { MODE REAL(int, openat, int, const char *, int, ...); OPENING(folder, real(folder, path, flags, mode)) }
int openat64(int folder, const char *path, int flags, ...) { MODE REAL(int, openat64, int, const char *, int, ...); OPENING(folder, real(folder, path, flags, mode)) }
int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* ---- writing ---- */
static ssize_t write_at(int fd, const void *data, size_t n, off64_t offset, int has_offset, int *seen) {
    char full[PATH_MAX];
    struct stat s;
    *seen = armed && fd != log_fd && !fstat(fd, &s) && S_ISREG(s.st_mode) && path_of(fd, full) && under(full);
    if (!*seen) return 0;
    int spoilt = enter(WRITE, n);
    REFUSED(spoilt, WRITE, -1)
    size_t part = spoilt < 0 ? n / 2 : n;
    int flags = fcntl(fd, F_GETFL);
    uint64_t where = flags & O_APPEND ? (uint64_t)s.st_size : has_offset ? (uint64_t)offset : (uint64_t)lseek(fd, 0, SEEK_CUR);
    ssize_t done = has_offset ? syscall(SYS_pwrite64, fd, data, part, offset) : syscall(SYS_write, fd, data, part);
    leave(done >= 0, WRITE, full, 0, s.st_ino, where, done > 0 ? done : 0, data, done > 0 ? done : 0);
    if (spoilt < 0 && fault == SHORT_KILL) die();
    return done;
}

ssize_t write(int fd, const void *data, size_t n) {
    int seen;
    ssize_t done = write_at(fd, data, n, 0, 0, &seen);
    return seen ? done : syscall(SYS_write, fd, data, n);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) {
    int seen;
    ssize_t done = write_at(fd, data, n, offset, 1, &seen);
    return seen ? done : syscall(SYS_pwrite64, fd, data, n, offset);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) { return pwrite64(fd, data, n, offset); }

/* A vector may be written in part: writing its first piece alone is a correct answer. */
ssize_t writev(int fd, const struct iovec *pieces, int n) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    int seen = 0;
    for (int i = 0; armed && i < n; i++)
        if (pieces[i].iov_len) {
            ssize_t done = write_at(fd, pieces[i].iov_base, pieces[i].iov_len, 0, 0, &seen);
            if (seen) return done;
            break;
        }
    return real(fd, pieces, n);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int n, off64_t offset) {
    REAL(ssize_t, pwritev64, int, const struct iovec *, int, off64_t);
    int seen = 0;
    for (int i = 0; armed && i < n; i++)
        if (pieces[i].iov_len) {
            ssize_t done = write_at(fd, pieces[i].iov_base, pieces[i].iov_len, offset, 1, &seen);
            if (seen) return done;
            break;
        }
    return real(fd, pieces, n, offset);
}
ssize_t pwritev(int fd, const struct iovec *pieces, int n, off_t offset) { return pwritev64(fd, pieces, n, offset); }

/* Copies within the kernel: callers fall back on reading and writing, which is seen. */
#define NO_COPY(out) \
    char full[PATH_MAX]; \
    if (armed && path_of(out, full) && under(full)) { \
        errno = EINVAL; \
        return -1; \
    }
ssize_t sendfile64(int out, int in, off64_t *offset, size_t n) { NO_COPY(out) REAL(ssize_t, sendfile64, int, int, off64_t *, size_t); return real(out, in, offset, n); }
ssize_t sendfile(int out, int in, off_t *offset, size_t n) { return sendfile64(out, in, offset, n); }
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned flags) {
    NO_COPY(out)
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    return real(in, in_at, out, out_at, n, flags);
}

/* ---- by descriptor: sync, size, mode ---- */
#define BY_FD(kind, call, offset, length) \
    char full[PATH_MAX]; \
    if (!armed || !path_of(fd, full) || !under(full)) return call; \
    int spoilt = enter(kind, 0); \
    REFUSED(spoilt, kind, -1) \
    int done = call; \
    leave(!done, kind, full, 0, inode_of(fd), offset, length, 0, 0); \
    return done;

int fsync(int fd) { REAL(int, fsync, int); BY_FD(SYNC, real(fd), 0, 0) }
int fdatasync(int fd) { REAL(int, fdatasync, int); BY_FD(SYNC, real(fd), 0, 0) }
int ftruncate64(int fd, off64_t n) { REAL(int, ftruncate64, int, off64_t); BY_FD(TRUNCATE, real(fd, n), 0, n) }
int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }
int fchmod(int fd, mode_t mode) { REAL(int, fchmod, int, mode_t); BY_FD(CHMOD, real(fd, mode), 0, mode) }

/* This one returns its error. */
int posix_fallocate64(int fd, off64_t offset, off64_t n) {
    REAL(int, posix_fallocate64, int, off64_t, off64_t);
    char full[PATH_MAX];
    if (!armed || !path_of(fd, full) || !under(full)) return real(fd, offset, n);
    int spoilt = enter(ALLOCATE, 0);
    if (spoilt > 0) {
        leave(0, ALLOCATE, "", 0, 0, 0, 0, 0, 0);
        return spoilt;
    }
    int failed = real(fd, offset, n);
    leave(!failed, ALLOCATE, full, 0, inode_of(fd), offset, n, 0, 0);
    return failed;
}
int posix_fallocate(int fd, off_t offset, off_t n) { return posix_fallocate64(fd, offset, n); }
int fallocate64(int fd, int mode, off64_t offset, off64_t n) { REAL(int, fallocate64, int, int, off64_t, off64_t); BY_FD(ALLOCATE, real(fd, mode, offset, n), offset, n) }
int fallocate(int fd, int mode, off_t offset, off_t n) { return fallocate64(fd, mode, offset, n); }

/* ---- by path ---- */
#define BY_PATH(folder, kind, call, length) \
    char full[PATH_MAX]; \
    if (!armed || !resolve(folder, path, full) || !under(full)) return call; \
    int spoilt = enter(kind, 0); \
    REFUSED(spoilt, kind, -1) \
    struct stat s = {0}; \
    if (kind == TRUNCATE) stat(full, &s); \
    int done = call; \
    if (kind == MKDIR) stat(full, &s); \
    leave(!done, kind, full, 0, s.st_ino, 0, length, 0, 0); \
    return done;

int unlink(const char *path) { REAL(int, unlink, const char *); BY_PATH(AT_FDCWD, UNLINK, real(path), 0) }
int unlinkat(int folder, const char *path, int flags) { REAL(int, unlinkat, int, const char *, int); int kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK; BY_PATH(folder, kind, real(folder, path, flags), 0) }
int rmdir(const char *path) { REAL(int, rmdir, const char *); BY_PATH(AT_FDCWD, RMDIR, real(path), 0) }
int mkdir(const char *path, mode_t mode) { REAL(int, mkdir, const char *, mode_t); BY_PATH(AT_FDCWD, MKDIR, real(path, mode), 0) }
int mkdirat(int folder, const char *path, mode_t mode) { REAL(int, mkdirat, int, const char *, mode_t); BY_PATH(folder, MKDIR, real(folder, path, mode), 0) }
int truncate64(const char *path, off64_t n) { REAL(int, truncate64, const char *, off64_t); BY_PATH(AT_FDCWD, TRUNCATE, real(path, n), n) }
int truncate(const char *path, off_t n) { return truncate64(path, n); }
int chmod(const char *path, mode_t mode) { REAL(int, chmod, const char *, mode_t); BY_PATH(AT_FDCWD, CHMOD, real(path, mode), mode) }
int fchmodat(int folder, const char *path, mode_t mode, int flags) { REAL(int, fchmodat, int, const char *, mode_t, int); BY_PATH(folder, CHMOD, real(folder, path, mode, flags), mode) }

/* ---- two paths ---- */
#define TWO_PATHS(from_folder, to_folder, kind, call) \
    char first[PATH_MAX], second[PATH_MAX]; \
    if (!armed || !resolve(from_folder, from, first) || !resolve(to_folder, to, second) || (!under(first) && !under(second))) return call; \
    int spoilt = enter(kind, 0); \
    REFUSED(spoilt, kind, -1) \
    int done = call; \
    leave(!done, kind, first, second, 0, 0, 0, 0, 0); \
    return done;

int rename(const char *from, const char *to) { REAL(int, rename, const char *, const char *); TWO_PATHS(AT_FDCWD, AT_FDCWD, RENAME, real(from, to)) }
int renameat(int a, const char *from, int b, const char *to) { REAL(int, renameat, int, const char *, int, const char *); TWO_PATHS(a, b, RENAME, real(a, from, b, to)) }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { REAL(int, renameat2, int, const char *, int, const char *, unsigned); TWO_PATHS(a, b, RENAME, real(a, from, b, to, flags)) }
int link(const char *from, const char *to) { REAL(int, link, const char *, const char *); TWO_PATHS(AT_FDCWD, AT_FDCWD, LINK, real(from, to)) }
int linkat(int a, const char *from, int b, const char *to, int flags) { REAL(int, linkat, int, const char *, int, const char *, int); TWO_PATHS(a, b, LINK, real(a, from, b, to, flags)) }
int symlink(const char *to, const char *path) { REAL(int, symlink, const char *, const char *); BY_PATH(AT_FDCWD, LINK, real(to, path), 0) }
int symlinkat(const char *to, int folder, const char *path) { REAL(int, symlinkat, const char *, int, const char *); BY_PATH(folder, LINK, real(to, folder, path), 0) }
