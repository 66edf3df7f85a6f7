/*
 * Tries file operations in a directory, for volume-matrix.test.ts: `probe LABEL DIRECTORY` prints one line for each
 * operation, `LABEL NAME: OUTCOME`. The outcome is `ok`, the name of the errno that it failed with, or `wrong` if every
 * call succeeded but the result is not what was done. The directory has a file `seed`, which is used where no file can
 * be made. `probe watch LABEL FILE SIGN` waits for a change that it did not make itself.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEED "seed\n"
/* Both end the operation; its descriptors stay open until the end of the program. */
#define TRY(call) do { if ((call) < 0) return strerrorname_np(errno); } while (0)
#define EXPECT(is_so) do { if (!(is_so)) return "wrong"; } while (0)

enum { page = 4096, files = 100, chunk = 64 * 1024, chunks = 128, watch_ms = 3000 };

static const char *check(const char *path, const char *wanted)
{
    char found[64] = "";
    int fd;

    TRY(fd = open(path, O_RDONLY));
    TRY(read(fd, found, sizeof found - 1));
    TRY(close(fd));
    EXPECT(strcmp(found, wanted) == 0);
    return "ok";
}

static const char *make(const char *path, const char *text)
{
    int fd;

    TRY(fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644));
    TRY(write(fd, text, strlen(text)));
    TRY(close(fd));
    return "ok";
}

static const char *op_read(const char *file)
{
    struct stat status;

    TRY(stat(file, &status));
    EXPECT(status.st_size == (off_t)strlen(SEED));
    return check(file, SEED);
}

static const char *op_write(const char *file)
{
    int fd;

    TRY(fd = open(file, O_WRONLY | O_APPEND));
    TRY(write(fd, "more\n", 5));
    TRY(close(fd));
    TRY(fd = open(file, O_WRONLY));
    TRY(pwrite(fd, "S", 1, 0));
    TRY(close(fd));
    return check(file, "Seed\nmore\n");
}

static const char *op_truncate(const char *file)
{
    struct stat status;

    TRY(truncate(file, 2));
    TRY(stat(file, &status));
    EXPECT(status.st_size == 2);
    return check(file, "se");
}

static const char *op_rename(const char *file)
{
    const char *made = make("rename-over", "over\n");

    if (strcmp(made, "ok") != 0 && strcmp(made, "EROFS") != 0) return made;
    TRY(rename(file, "rename-over"));
    EXPECT(access(file, F_OK) < 0 && errno == ENOENT);
    return check("rename-over", SEED);
}

static const char *op_hard_link(const char *file)
{
    struct stat one, other;

    TRY(link(file, "hard-link"));
    TRY(stat(file, &one));
    TRY(stat("hard-link", &other));
    EXPECT(one.st_ino == other.st_ino && one.st_nlink == 2);
    TRY(unlink(file));
    return check("hard-link", SEED);
}

static const char *op_symlink(const char *file)
{
    char target[64] = "";

    TRY(symlink(file, "soft-link"));
    TRY(readlink("soft-link", target, sizeof target - 1));
    EXPECT(strcmp(target, file) == 0);
    return check("soft-link", SEED);
}

static const char *op_directory(const char *file)
{
    (void)file;
    TRY(mkdir("directory", 0755));
    TRY(mkdir("directory/below", 0755));
    EXPECT(rmdir("directory") < 0 && errno == ENOTEMPTY);
    TRY(rename("directory/below", "below"));
    TRY(rmdir("directory"));
    TRY(rmdir("below"));
    return "ok";
}

static const char *op_chmod(const char *file)
{
    struct stat status;

    TRY(chmod(file, 04751));
    TRY(stat(file, &status));
    EXPECT((status.st_mode & 07777) == 04751);
    return "ok";
}

static const char *op_chown(const char *file)
{
    struct stat status;

    TRY(chown(file, 1234, 5678));
    TRY(stat(file, &status));
    EXPECT(status.st_uid == 1234 && status.st_gid == 5678);
    return "ok";
}

static int take_flock(int fd, off_t start)
{
    (void)start;
    return flock(fd, LOCK_EX | LOCK_NB);
}

static int take_fcntl(int fd, off_t start)
{
    struct flock ten = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 10};

    return fcntl(fd, F_SETLK, &ten);
}

/* Another process: reports that it has the lock of the first bytes, and holds it until the pipe is closed. */
static void hold(int (*take)(int, off_t), int fd, int say, int until)
{
    int failed = fd < 0 || take(fd, 0) < 0 ? errno : 0;
    char end;

    if (write(say, &failed, sizeof failed) != (ssize_t)sizeof failed) _exit(1);
    _exit(read(until, &end, 1) < 0);
}

/* Result of the lock from `start` on: `held` while the other process has that of the first bytes, or `ok`. */
static const char *contend(int (*take)(int, off_t), const char *file, int flags, off_t start)
{
    int said[2], until[2], fd, failed, taken;
    pid_t holder;

    TRY(fd = open(file, flags));
    TRY(pipe2(said, O_CLOEXEC));
    TRY(pipe2(until, O_CLOEXEC));
    TRY(holder = fork());
    if (holder == 0) {
        close(until[1]);
        hold(take, open(file, flags), said[1], until[0]);
    }
    EXPECT(read(said[0], &failed, sizeof failed) == (ssize_t)sizeof failed);
    taken = failed != 0 ? -1 : take(fd, start);
    errno = failed != 0 ? failed : errno;
    const char *outcome = taken == 0 ? "ok" : errno == EAGAIN ? "held" : strerrorname_np(errno);
    close(until[1]);
    TRY(waitpid(holder, NULL, 0));
    TRY(taken == 0 ? 0 : take(fd, start)); /* no longer held */
    TRY(close(fd));
    return outcome;
}

/* Tries to get the same lock twice, which must fail. */
static const char *contend_for_same(int (*take)(int, off_t), const char *file, int flags)
{
    const char *outcome = contend(take, file, flags, 0);

    return strcmp(outcome, "ok") == 0 ? "wrong" : strcmp(outcome, "held") == 0 ? "ok" : outcome;
}

static const char *op_flock(const char *file) { return contend_for_same(take_flock, file, O_RDONLY); }
static const char *op_fcntl(const char *file) { return contend_for_same(take_fcntl, file, O_RDWR); }
static const char *op_fcntl_range(const char *file) { return contend(take_fcntl, file, O_RDWR, 20); }

static const char *op_map_read(const char *file)
{
    char *bytes;
    int fd;

    TRY(fd = open(file, O_RDONLY));
    bytes = mmap(NULL, page, PROT_READ, MAP_PRIVATE, fd, 0);
    TRY(bytes == MAP_FAILED ? -1 : 0);
    EXPECT(memcmp(bytes, SEED, strlen(SEED)) == 0);
    return "ok";
}

/* Writes through the mapping and reads by calls, and the reverse. */
static const char *map_shared(const char *file, int is_synced)
{
    char found[6], *bytes;
    int fd, other;

    TRY(fd = open(file, O_RDWR));
    TRY(ftruncate(fd, 2 * page));
    bytes = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    TRY(bytes == MAP_FAILED ? -1 : 0);
    EXPECT(memcmp(bytes, SEED, strlen(SEED)) == 0);
    memcpy(bytes + page, "mapped", 6);
    if (is_synced) TRY(msync(bytes, 2 * page, MS_SYNC));
    TRY(other = open(file, O_RDWR));
    TRY(pread(other, found, 6, page));
    EXPECT(memcmp(found, "mapped", 6) == 0);
    TRY(pwrite(other, "called", 6, page));
    EXPECT(memcmp(bytes + page, "called", 6) == 0);
    return "ok";
}

static const char *op_map(const char *file) { return map_shared(file, 1); }
static const char *op_map_unsynced(const char *file) { return map_shared(file, 0); }

static const char *op_fsync(const char *file)
{
    int fd, directory;

    TRY(fd = open(file, O_WRONLY));
    TRY(write(fd, "SEED", 4));
    TRY(fsync(fd));
    TRY(fdatasync(fd));
    TRY(directory = open(".", O_RDONLY | O_DIRECTORY));
    TRY(fsync(directory));
    return check(file, "SEED\n");
}

static const char *op_many(const char *file)
{
    char path[64], text[64];
    int found = 0;
    DIR *directory;

    (void)file;
    TRY(mkdir("many", 0755));
    for (int i = 0; i < files; i++) {
        snprintf(path, sizeof path, "many/%d", i);
        snprintf(text, sizeof text, "text %d", i);
        const char *made = make(path, text);
        if (strcmp(made, "ok") != 0) return made;
    }
    TRY((directory = opendir("many")) == NULL ? -1 : 0);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) found += entry->d_name[0] != '.';
    EXPECT(found == files);
    for (int i = 0; i < files; i++) {
        snprintf(path, sizeof path, "many/%d", i);
        snprintf(text, sizeof text, "text %d", i);
        const char *checked = check(path, text);
        if (strcmp(checked, "ok") != 0) return checked;
        TRY(unlink(path));
    }
    TRY(rmdir("many"));
    return "ok";
}

/* All numbers differ, so that no page equals its neighbour. */
static void fill(unsigned *numbers, unsigned which)
{
    for (unsigned i = 0; i < chunk / sizeof *numbers; i++) numbers[i] = (which * chunk + i) * 2654435761u;
}

static const char *op_large(const char *file)
{
    static unsigned wanted[chunk / sizeof(unsigned)], found[chunk / sizeof(unsigned)];
    struct stat status;
    int fd;

    TRY(fd = open(file, O_WRONLY | O_TRUNC));
    for (unsigned i = 0; i < chunks; i++) {
        fill(wanted, i);
        ssize_t written = write(fd, wanted, chunk);
        TRY(written);
        EXPECT(written == chunk);
    }
    TRY(fsync(fd));
    TRY(close(fd));
    TRY(stat(file, &status));
    EXPECT(status.st_size == (off_t)chunk * chunks);
    TRY(fd = open(file, O_RDONLY));
    for (unsigned i = 0; i < chunks; i++) {
        fill(wanted, i);
        for (size_t done = 0; done < chunk;) {
            ssize_t moved = read(fd, (char *)found + done, chunk - done);
            TRY(moved);
            EXPECT(moved > 0);
            done += (size_t)moved;
        }
        EXPECT(memcmp(found, wanted, chunk) == 0);
    }
    return "ok";
}

static const char *op_deleted(const char *file)
{
    char found[8] = "";
    struct stat status;
    int fd;

    TRY(fd = open(file, O_RDWR));
    TRY(unlink(file));
    TRY(pread(fd, found, 5, 0));
    EXPECT(strcmp(found, SEED) == 0);
    TRY(fstat(fd, &status));
    EXPECT(status.st_nlink == 0);
    return "ok";
}

static const char *op_fallocate(const char *file)
{
    struct stat status;
    int fd;

    TRY(fd = open(file, O_RDWR));
    TRY(fallocate(fd, 0, 0, page));
    TRY(fstat(fd, &status));
    EXPECT(status.st_size == page);
    return "ok";
}

static const char *op_tmpfile(const char *file)
{
    (void)file;
    TRY(open(".", O_TMPFILE | O_RDWR, 0600));
    return "ok";
}

static const char *op_direct(const char *file)
{
    static _Alignas(4096) char bytes[page];
    int fd;

    TRY(fd = open(file, O_RDWR | O_DIRECT));
    memset(bytes, 'd', page);
    TRY(pwrite(fd, bytes, page, 0));
    memset(bytes, 0, page);
    TRY(pread(fd, bytes, page, 0));
    EXPECT(bytes[0] == 'd' && bytes[page - 1] == 'd');
    return "ok";
}

static const char *op_made_direct(const char *file)
{
    (void)file;
    TRY(open("made-direct", O_CREAT | O_EXCL | O_RDWR | O_DIRECT, 0644));
    return "ok";
}

static const struct {
    const char *name;
    const char *(*run)(const char *file);
} operations[] = {
    {"read", op_read},           {"write", op_write},         {"truncate", op_truncate},
    {"rename", op_rename},       {"hard link", op_hard_link}, {"symlink", op_symlink},
    {"directory", op_directory}, {"chmod", op_chmod},         {"chown", op_chown},
    {"flock", op_flock},         {"fcntl", op_fcntl},         {"fcntl of a range", op_fcntl_range},
    {"mmap to read", op_map_read}, {"mmap", op_map},          {"mmap without msync", op_map_unsynced},
    {"fsync", op_fsync},         {"many files", op_many},     {"large file", op_large},
    {"deleted while open", op_deleted}, {"fallocate", op_fallocate}, {"O_TMPFILE", op_tmpfile},
    {"O_DIRECT", op_direct}, {"O_DIRECT of a new file", op_made_direct},
};

/* Prints `ok` when inotify reports a change to the file, after the sign that it may come; `unseen` if it does not. */
static int watch(const char *label, const char *file, const char *sign)
{
    struct pollfd events = {.fd = inotify_init1(IN_CLOEXEC), .events = POLLIN};

    if (events.fd < 0 || inotify_add_watch(events.fd, file, IN_MODIFY) < 0) return 1;
    if (strcmp(make(sign, ""), "ok") != 0) return 1;
    printf("%s inotify: %s\n", label, poll(&events, 1, watch_ms) == 1 ? "ok" : "unseen");
    return 0;
}

int main(int argc, char **argv)
{
    alarm(120); /* a file system that hangs is a line that is missing, not a test that does not end */
    if (argc == 5 && strcmp(argv[1], "watch") == 0) return watch(argv[2], argv[3], argv[4]);
    if (argc != 3 || chdir(argv[2]) < 0) return 2;
    umask(022);
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        char file[64];

        snprintf(file, sizeof file, "file-%zu", i);
        if (strcmp(make(file, SEED), "ok") != 0) strcpy(file, "seed");
        printf("%s %s: %s\n", argv[1], operations[i].name, operations[i].run(file));
        fflush(stdout);
    }
    return 0;
}
