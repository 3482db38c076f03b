/* Let a system call on a file below some folders fail, or kill the process at it. Loaded with LD_PRELOAD, see sweep.py.

   The plan is in memory that parent and child share, so that what a killed child counted is known. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, SYNC, RENAME, OPEN, READ, UNLINK, MKDIR, RMDIR, TRUNCATE, CALLS };
enum { COUNT, FAIL, FAIL_FROM_HERE, KILL, SHORT, TORN }; /* TORN: half is written, then the process is killed */

struct plan {
    int armed, call, action, error;
    long at, seen[CALLS];
    int fired;
    char output[256], input[256]; /* folders; of the second only what is opened and read counts */
    char path[1024];              /* of the file whose call failed */
};

static struct plan *plan;

void faults_use(struct plan *shared) { plan = shared; }

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int is_in(const char *path, const char *folder) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static const char *path_of(int descriptor, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    buffer[length < 0 ? 0 : length] = 0;
    return buffer;
}

static const char *path_at(int folder, const char *path, char *buffer) {
    if (path[0] == '/' || folder == AT_FDCWD) return path;
    path_of(folder, buffer);
    size_t length = strlen(buffer);
    snprintf(buffer + length, PATH_MAX - length, "/%s", path);
    return buffer;
}

/* Count a call, and tell what is to become of it; a process that is to be killed does not return. */
static int fate(int call, const char *path) {
    if (!(is_in(path, plan->output) || ((call == OPEN || call == READ) && is_in(path, plan->input)))) return COUNT;
    long number = __atomic_fetch_add(&plan->seen[call], 1, __ATOMIC_SEQ_CST);
    if (plan->call != call || number < plan->at) return COUNT;
    if (number > plan->at && plan->action != FAIL_FROM_HERE) return COUNT;
    if (plan->action == COUNT) return COUNT;
    if (!plan->fired) snprintf(plan->path, sizeof plan->path, "%s", path);
    plan->fired = 1;
    if (plan->action == KILL) kill(getpid(), SIGKILL);
    errno = plan->error;
    return plan->action;
}

#define ARMED (plan && plan->armed)
#define BY_DESCRIPTOR(call) \
    char path[PATH_MAX]; \
    int saved = errno, what = ARMED ? fate(call, path_of(descriptor, path)) : COUNT; \
    if (what == FAIL || what == FAIL_FROM_HERE) return -1; \
    errno = saved
#define BY_PATH(call, folder, name, failed) \
    char buffer[PATH_MAX]; \
    int saved = errno, what = ARMED ? fate(call, path_at(folder, name, buffer)) : COUNT; \
    if (what == FAIL || what == FAIL_FROM_HERE) return failed; \
    errno = saved
#define HALVED(n) ((what == SHORT || what == TORN) && (n) > 1 ? (n) / 2 : (n))
#define TORN_HERE() \
    if (what == TORN) kill(getpid(), SIGKILL)

ssize_t write(int descriptor, const void *bytes, size_t n) {
    REAL(write);
    BY_DESCRIPTOR(WRITE);
    ssize_t done = real(descriptor, bytes, HALVED(n));
    TORN_HERE();
    return done;
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t n, off64_t place) {
    REAL(pwrite64);
    BY_DESCRIPTOR(WRITE);
    ssize_t done = real(descriptor, bytes, HALVED(n), place);
    TORN_HERE();
    return done;
}
ssize_t pwrite(int descriptor, const void *bytes, size_t n, off_t place) { return pwrite64(descriptor, bytes, n, place); }
ssize_t writev(int descriptor, const struct iovec *parts, int n) {
    REAL(writev);
    BY_DESCRIPTOR(WRITE);
    ssize_t done = real(descriptor, parts, HALVED(n));
    TORN_HERE();
    return done;
}
ssize_t read(int descriptor, void *bytes, size_t n) {
    REAL(read);
    BY_DESCRIPTOR(READ);
    return real(descriptor, bytes, HALVED(n));
}
ssize_t pread64(int descriptor, void *bytes, size_t n, off64_t place) {
    REAL(pread64);
    BY_DESCRIPTOR(READ);
    return real(descriptor, bytes, HALVED(n), place);
}
ssize_t pread(int descriptor, void *bytes, size_t n, off_t place) { return pread64(descriptor, bytes, n, place); }

int fsync(int descriptor) {
    REAL(fsync);
    BY_DESCRIPTOR(SYNC);
    return real(descriptor);
}
int fdatasync(int descriptor) {
    REAL(fdatasync);
    BY_DESCRIPTOR(SYNC);
    return real(descriptor);
}
int ftruncate64(int descriptor, off64_t length) {
    REAL(ftruncate64);
    BY_DESCRIPTOR(TRUNCATE);
    return real(descriptor, length);
}
int ftruncate(int descriptor, off_t length) { return ftruncate64(descriptor, length); }

static mode_t mode_in(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}
#define OPENED(folder, name) \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = mode_in(flags, rest); \
    va_end(rest); \
    REAL(openat64); \
    BY_PATH(OPEN, folder, name, -1); \
    return real(folder, name, flags, mode)
int open(const char *name, int flags, ...) { OPENED(AT_FDCWD, name); }
int open64(const char *name, int flags, ...) { OPENED(AT_FDCWD, name); }
int openat(int folder, const char *name, int flags, ...) { OPENED(folder, name); }
int openat64(int folder, const char *name, int flags, ...) { OPENED(folder, name); }
DIR *opendir(const char *name) {
    REAL(opendir);
    BY_PATH(OPEN, AT_FDCWD, name, NULL);
    return real(name);
}

int rename(const char *old, const char *name) {
    REAL(rename);
    BY_PATH(RENAME, AT_FDCWD, name, -1);
    return real(old, name);
}
int renameat(int from, const char *old, int to, const char *name) {
    REAL(renameat);
    BY_PATH(RENAME, to, name, -1);
    return real(from, old, to, name);
}
int unlink(const char *name) {
    REAL(unlink);
    BY_PATH(UNLINK, AT_FDCWD, name, -1);
    return real(name);
}
int unlinkat(int folder, const char *name, int flags) {
    REAL(unlinkat);
    BY_PATH(flags & AT_REMOVEDIR ? RMDIR : UNLINK, folder, name, -1);
    return real(folder, name, flags);
}
int rmdir(const char *name) {
    REAL(rmdir);
    BY_PATH(RMDIR, AT_FDCWD, name, -1);
    return real(name);
}
int mkdir(const char *name, mode_t mode) {
    REAL(mkdir);
    BY_PATH(MKDIR, AT_FDCWD, name, -1);
    return real(name, mode);
}
int mkdirat(int folder, const char *name, mode_t mode) {
    REAL(mkdirat);
    BY_PATH(MKDIR, folder, name, -1);
    return real(folder, name, mode);
}
