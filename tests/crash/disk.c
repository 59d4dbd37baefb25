/*
 * A disk, a clock and a power switch for the process that this is preloaded into (LD_PRELOAD).
 *
 * Every change of a file below HEARTH_DISK_FOLDER is written to HEARTH_DISK_LOG before it is made, with what makes it
 * durable: fsync of the file, fsync of the folder. The process works on the real files, which are what its page cache
 * would be; what a loss of power leaves is made of the log afterwards (disk.rs). Nothing is really synced meanwhile.
 *
 * HEARTH_DISK_CONTROL is a page of numbers that the test sets while the process runs (enum word): errors to answer with,
 * lies to tell, the time.
 *
 * SQLite's shared memory (-shm) is no file that counts: it is mapped, never synced, and rebuilt at the start.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* What the test sets, and counts that it reads. In disk.rs: enum Word. */
enum word {
    WRITE_ERROR,  /* errno of writes that make files longer or change them; 0: they work */
    WRITES_LEFT,  /* so many still work before that */
    SYNC_ERROR,   /* errno of fsync: what it should have made durable may be lost, and the next fsync doesn't tell */
    SYNC_LIES,    /* fsync says that it is done, and does nothing */
    SHORT_WRITES, /* a write writes half of what it is given */
    CLOCK_MS,     /* added to the time of day */
    DIE_AFTER,    /* the process is killed instead of the change with this number; 0: it isn't */
    CHANGES,      /* changes so far */
    SYNCS,        /* calls of fsync so far */
    FAILED,       /* calls that were answered with an error */
    WORDS
};

enum kind { OPENED = 1, MADE, WROTE, TRUNCATED, SYNCED, SYNC_FAILED, RENAMED, UNLINKED, FOLDER_SYNCED };

struct record {
    uint64_t kind, file, offset, length;
};

enum { FILES = 65536, NOT_OURS = 0, A_FILE, SHARED_MEMORY, THE_FOLDER };

static struct {
    char what;
    uint64_t inode;
} files[FILES];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile int64_t nothing[WORDS];
static volatile int64_t *control = nothing;
static char folder[4096];
static size_t folder_length;
static int log_file = -1;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_ftruncate)(int, off64_t);
static int (*real_fsync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_unlinkat)(int, const char *, int);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void start(void) {
    if (real_open) return;
    real_openat = real("openat64");
    real_close = real("close");
    real_write = real("write");
    real_writev = real("writev");
    real_pwrite = real("pwrite64");
    real_ftruncate = real("ftruncate64");
    real_fsync = real("fsync");
    real_rename = real("rename");
    real_unlink = real("unlink");
    real_unlinkat = real("unlinkat");
    real_clock_gettime = real("clock_gettime");
    real_open = real("open64");
    const char *path = getenv("HEARTH_DISK_FOLDER");
    if (path && strlen(path) < sizeof folder) {
        strcpy(folder, path);
        folder_length = strlen(folder);
    }
    path = getenv("HEARTH_DISK_CONTROL");
    if (path) {
        int file = real_open(path, O_RDWR | O_CLOEXEC);
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (file < 0 || page == MAP_FAILED) abort();
        control = page;
        real_close(file);
    }
    path = getenv("HEARTH_DISK_LOG");
    if (path) {
        log_file = real_open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (log_file < 0) abort();
    }
}

/* The name below the folder; NULL if it is elsewhere. */
static const char *inside(const char *path) {
    if (!folder_length || strncmp(path, folder, folder_length) != 0) return NULL;
    if (path[folder_length] == 0) return path + folder_length;
    return path[folder_length] == '/' ? path + folder_length + 1 : NULL;
}

static int is_shared_memory(const char *name) {
    size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, "-shm") == 0;
}

static int what(int file) {
    return file >= 0 && file < FILES ? files[file].what : NOT_OURS;
}

static void note(enum kind kind, uint64_t file, uint64_t offset, const struct iovec *parts, int count, size_t length) {
    if (log_file < 0) return;
    struct record record = {kind, file, offset, length};
    struct iovec all[17] = {{&record, sizeof record}};
    for (int part = 0; part < count && part < 16; part++) {
        size_t part_length = parts[part].iov_len < length ? parts[part].iov_len : length;
        all[part + 1] = (struct iovec){parts[part].iov_base, part_length};
        length -= part_length;
    }
    if (real_writev(log_file, all, count + 1) < 0) abort();
}

static void note_name(enum kind kind, uint64_t file, const char *name) {
    struct iovec part = {(void *)name, strlen(name)};
    note(kind, file, 0, &part, 1, part.iov_len);
}

static int fail(int64_t error) {
    control[FAILED]++;
    errno = (int)error;
    return -1;
}

/* Called with the lock held, before each change. */
static void count_change(void) {
    control[CHANGES]++;
    if (control[DIE_AFTER] && control[CHANGES] >= control[DIE_AFTER]) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
}

static int write_fails(void) {
    if (!control[WRITE_ERROR]) return 0;
    if (control[WRITES_LEFT] > 0) {
        control[WRITES_LEFT]--;
        return 0;
    }
    return 1;
}

static int opened(int (*call)(int, const char *, int, mode_t), int at, const char *path, int flags, mode_t mode) {
    start();
    const char *name = path[0] == '/' ? inside(path) : NULL;
    if (!name) return call(at, path, flags, mode);
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    struct stat64 status;
    pthread_mutex_lock(&lock);
    int existed = stat64(path, &status) == 0;
    if (!existed && (flags & O_CREAT) && !is_shared_memory(name)) {
        count_change();
        if (write_fails()) {
            pthread_mutex_unlock(&lock);
            return fail(control[WRITE_ERROR]);
        }
    }
    int file = call(at, path, flags, mode);
    if (file >= 0 && file < FILES && fstat64(file, &status) == 0) {
        files[file].inode = status.st_ino;
        if (S_ISDIR(status.st_mode)) {
            files[file].what = THE_FOLDER;
        } else if (is_shared_memory(name)) {
            files[file].what = SHARED_MEMORY;
        } else {
            files[file].what = A_FILE;
            if (!existed) note_name(MADE, status.st_ino, name);
            else if (writes) note_name(OPENED, status.st_ino, name);
            if (existed && (flags & O_TRUNC)) note(TRUNCATED, status.st_ino, 0, NULL, 0, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    return file;
}

static int call_open(int at, const char *path, int flags, mode_t mode) {
    (void)at;
    return real_open(path, flags, mode);
}

static int call_openat(int at, const char *path, int flags, mode_t mode) {
    return real_openat(at, path, flags, mode);
}

static mode_t mode_of(int flags, va_list arguments) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

#define OPEN(NAME)                                                    \
    int NAME(const char *path, int flags, ...) {                      \
        va_list arguments;                                            \
        va_start(arguments, flags);                                   \
        mode_t mode = mode_of(flags, arguments);                      \
        va_end(arguments);                                            \
        return opened(call_open, AT_FDCWD, path, flags, mode);        \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(NAME)                                                  \
    int NAME(int at, const char *path, int flags, ...) {              \
        va_list arguments;                                            \
        va_start(arguments, flags);                                   \
        mode_t mode = mode_of(flags, arguments);                      \
        va_end(arguments);                                            \
        return opened(call_openat, at, path, flags, mode);            \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int file) {
    start();
    if (what(file) != NOT_OURS) files[file].what = NOT_OURS;
    return real_close(file);
}

/* Writes to a file of ours; `offset` is negative where the file's own place counts. */
static ssize_t written(int file, const struct iovec *parts, int count, off64_t offset) {
    size_t length = 0;
    for (int part = 0; part < count; part++) length += parts[part].iov_len;
    pthread_mutex_lock(&lock);
    count_change();
    if (write_fails()) {
        pthread_mutex_unlock(&lock);
        return fail(control[WRITE_ERROR]);
    }
    struct iovec half;
    if (control[SHORT_WRITES] && length > 1) {
        half = parts[0];
        if (count == 1) half.iov_len = length / 2;
        parts = &half;
        count = 1;
        length = half.iov_len;
    }
    off64_t place = offset < 0 ? lseek64(file, 0, SEEK_CUR) : offset;
    if (what(file) == A_FILE) note(WROTE, files[file].inode, place, parts, count, length);
    ssize_t done;
    if (offset < 0) {
        done = real_writev(file, parts, count);
    } else {
        done = 0;
        for (int part = 0; part < count; part++) {
            done += real_pwrite(file, parts[part].iov_base, parts[part].iov_len, offset + done);
        }
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int file, const void *bytes, size_t length) {
    start();
    if (what(file) == NOT_OURS) return real_write(file, bytes, length);
    struct iovec part = {(void *)bytes, length};
    return written(file, &part, 1, -1);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    start();
    if (what(file) == NOT_OURS) return real_writev(file, parts, count);
    return written(file, parts, count < 16 ? count : 16, -1);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
    start();
    if (what(file) == NOT_OURS) return real_pwrite(file, bytes, length, offset);
    struct iovec part = {(void *)bytes, length};
    return written(file, &part, 1, offset);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) {
    return pwrite64(file, bytes, length, offset);
}

int ftruncate64(int file, off64_t length) {
    start();
    if (what(file) == NOT_OURS) return real_ftruncate(file, length);
    pthread_mutex_lock(&lock);
    count_change();
    if (what(file) == A_FILE) note(TRUNCATED, files[file].inode, length, NULL, 0, 0);
    int done = real_ftruncate(file, length);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int file, off_t length) {
    return ftruncate64(file, length);
}

int fsync(int file) {
    start();
    if (what(file) == NOT_OURS || what(file) == SHARED_MEMORY) return real_fsync(file);
    pthread_mutex_lock(&lock);
    count_change();
    control[SYNCS]++;
    int done = 0;
    if (control[SYNC_ERROR]) {
        if (what(file) == A_FILE) note(SYNC_FAILED, files[file].inode, 0, NULL, 0, 0);
        done = fail(control[SYNC_ERROR]);
    } else if (!control[SYNC_LIES]) {
        note(what(file) == THE_FOLDER ? FOLDER_SYNCED : SYNCED, files[file].inode, 0, NULL, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int fdatasync(int file) {
    return fsync(file);
}

int rename(const char *from, const char *to) {
    start();
    const char *old = inside(from), *new = inside(to);
    if (!old || !new) return real_rename(from, to);
    char names[8192];
    size_t length = strlen(old);
    if (length + strlen(new) + 1 > sizeof names) return fail(ENAMETOOLONG);
    memcpy(names, old, length + 1);
    memcpy(names + length + 1, new, strlen(new));
    struct iovec part = {names, length + 1 + strlen(new)};
    pthread_mutex_lock(&lock);
    count_change();
    if (write_fails()) {
        pthread_mutex_unlock(&lock);
        return fail(control[WRITE_ERROR]);
    }
    note(RENAMED, 0, 0, &part, 1, part.iov_len);
    int done = real_rename(from, to);
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *path) {
    start();
    const char *name = inside(path);
    if (!name || is_shared_memory(name)) return real_unlink(path);
    pthread_mutex_lock(&lock);
    count_change();
    note_name(UNLINKED, 0, name);
    int done = real_unlink(path);
    pthread_mutex_unlock(&lock);
    return done;
}

int unlinkat(int at, const char *path, int flags) {
    start();
    if (flags || path[0] != '/' || !inside(path)) return real_unlinkat(at, path, flags);
    return unlink(path);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    start();
    int done = real_clock_gettime(clock, time);
    int64_t offset = control[CLOCK_MS];
    if (offset && done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t nanoseconds = time->tv_nsec + (offset % 1000) * 1000000;
        time->tv_sec += offset / 1000;
        if (nanoseconds < 0) time->tv_sec--, nanoseconds += 1000000000;
        if (nanoseconds >= 1000000000) time->tv_sec++, nanoseconds -= 1000000000;
        time->tv_nsec = nanoseconds;
    }
    return done;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
