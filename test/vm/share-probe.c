/* File operations that a shell lacks: for share.test.ts and bench, run from the shared directory itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int fail(const char *what)
{
    printf("%s: %s\n", what, strerrorname_np(errno));
    return 1;
}

/* Writes through a shared mapping, and reads the end of the file. */
static int map(const char *path)
{
    int fd = open(path, O_RDWR);
    char *bytes = fd < 0 ? MAP_FAILED : mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (bytes == MAP_FAILED) return fail("map");
    printf("read %.5s\n", bytes + 4096);
    memcpy(bytes, "mapped", 6);
    return msync(bytes, 8192, MS_SYNC) < 0 ? fail("msync") : 0;
}

/* Makes a file to show that it has the lock, and holds it until the file is gone. */
static int hold(const char *sign)
{
    if (sign[0] == '-') return puts("locked") < 0;
    close(open(sign, O_CREAT | O_WRONLY, 0600));
    while (access(sign, F_OK) == 0) usleep(20000);
    return 0;
}

/* Locks bytes of a file, from START on; `command` is F_SETLK or, to wait for them, F_SETLKW. */
static int lock(int command, const char *path, const char *start, const char *length, const char *sign)
{
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = atoi(start), .l_len = atoi(length)};
    int fd = open(path, O_RDWR);

    if (fd < 0 || fcntl(fd, command, &range) < 0) return fail("lock");
    return hold(sign);
}

/* Prints the lock that prevents locking the whole file. */
static int locked(const char *path)
{
    struct flock found = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR);

    if (fd < 0 || fcntl(fd, F_GETLK, &found) < 0) return fail("locked");
    if (found.l_type == F_UNLCK) return puts("none") < 0;
    return printf("%ld+%ld\n", (long)found.l_start, (long)found.l_len) < 0;
}

/* Waits for a lock until a signal comes, and prints the result. */
static void on_alarm(int signal)
{
    (void)signal;
}

static int wait_a_while(const char *path)
{
    struct sigaction action = {.sa_handler = on_alarm};
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR);

    sigaction(SIGALRM, &action, NULL);
    alarm(1);
    if (fd < 0 || fcntl(fd, F_SETLKW, &whole) < 0) return fail("wait");
    return puts("locked") < 0;
}

static int flock_whole(const char *path, const char *sign)
{
    int fd = open(path, O_RDONLY);

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) return fail("flock");
    return hold(sign);
}

static int create(const char *directory, int count)
{
    char path[4096];
    double started = now();

    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%d", directory, i);
        int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0 || write(fd, "0123456789abcdef", 16) != 16 || close(fd) < 0) return fail("create");
    }
    printf("%.0f files/s\n", count / (now() - started));
    return 0;
}

static int stream(const char *path, int flags, int mebibytes)
{
    static char buffer[1 << 20];
    int fd = open(path, flags, 0644);
    double started = now();

    if (fd < 0) return fail("open");
    for (int i = 0; i < mebibytes; i++)
        for (size_t done = 0; done < sizeof buffer;) {
            ssize_t moved = flags & O_WRONLY ? write(fd, buffer + done, sizeof buffer - done)
                                             : read(fd, buffer + done, sizeof buffer - done);
            if (moved <= 0) return fail("stream");
            done += (size_t)moved;
        }
    if ((flags & O_WRONLY) && fsync(fd) < 0) return fail("fsync");
    printf("%.1f MB/s\n", mebibytes * 1.048576 / (now() - started));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "map") == 0) return map(argv[2]);
    if (argc == 6 && strcmp(argv[1], "lock") == 0) return lock(F_SETLK, argv[2], argv[3], argv[4], argv[5]);
    if (argc == 6 && strcmp(argv[1], "lock-waiting") == 0) return lock(F_SETLKW, argv[2], argv[3], argv[4], argv[5]);
    if (argc == 3 && strcmp(argv[1], "locked") == 0) return locked(argv[2]);
    if (argc == 3 && strcmp(argv[1], "wait") == 0) return wait_a_while(argv[2]);
    if (argc == 4 && strcmp(argv[1], "flock") == 0) return flock_whole(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "create") == 0) return create(argv[2], atoi(argv[3]));
    if (argc == 4 && strcmp(argv[1], "write") == 0)
        return stream(argv[2], O_CREAT | O_TRUNC | O_WRONLY, atoi(argv[3]));
    if (argc == 4 && strcmp(argv[1], "read") == 0) return stream(argv[2], O_RDONLY, atoi(argv[3]));
    return 2;
}
