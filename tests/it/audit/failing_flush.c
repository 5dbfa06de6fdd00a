/* A disk that fails: while the file named by FAIL_FLUSH exists, the next flush of an audit log removes that file,
 * loses what was written since the last good flush, and reports EIO. Later flushes succeed again, as on Linux. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static off_t on_disk;

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    struct stat now;
    if (!strstr(path, "audit.jsonl") || fstat(fd, &now)) return real(fd);
    const char *flag = getenv("FAIL_FLUSH");
    if (flag && now.st_size > on_disk && unlink(flag) == 0) {
        int file = open(path, O_WRONLY);
        for (off_t at = on_disk; at < now.st_size; at++)
            if (pwrite(file, "", 1, at) != 1) abort();
        close(file);
        errno = EIO;
        return -1;
    }
    on_disk = now.st_size;
    return real(fd);
}
