/*
 * Preloaded into the host's file server, diod. It serves one file system: a directory whose device number is not its
 * parent's it takes for a mount point, and shows nothing below. A volume may have mounts below it, which its containers
 * are to see. So all it sees of a file's device is one constant; the number itself goes into the inode's, by which the
 * guest's kernel tells files apart (v9fs compares the qid's path), or two files of two file systems were one to it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

static int as_one(int result, struct stat *found)
{
    if (result == 0) {
        /* Odd and with bits all over: Knuth's multiplier spreads small numbers over the upper half. */
        found->st_ino += (uint64_t)found->st_dev * UINT64_C(0x9e3779b97f4a7c15);
        found->st_dev = 1;
    }
    return result;
}

int stat(const char *restrict path, struct stat *restrict found)
{
    return as_one(fstatat(AT_FDCWD, path, found, 0), found);
}

int lstat(const char *restrict path, struct stat *restrict found)
{
    return as_one(fstatat(AT_FDCWD, path, found, AT_SYMLINK_NOFOLLOW), found);
}

int fstat(int fd, struct stat *found)
{
    return as_one(fstatat(fd, "", found, AT_EMPTY_PATH), found);
}
