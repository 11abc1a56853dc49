/* Cut the power of a mounted file system, as that file system sees it.
 *
 *     fs-shutdown MOUNTPOINT
 *
 * Nothing that is not on the disk yet gets there, neither data nor log: the
 * ioctl of ext4 and of xfs has one number and one argument.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define FS_SHUTDOWN _IOR('X', 125, uint32_t)
#define NO_LOG_FLUSH 2u

int
main(int argc, char **argv)
{
    uint32_t how = NO_LOG_FLUSH;
    int fd;

    if (argc != 2) {
        (void)fprintf(stderr, "usage: fs-shutdown MOUNTPOINT\n");
        return 64;
    }
    fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, FS_SHUTDOWN, &how) < 0) {
        perror(argv[1]);
        return 1;
    }
    return 0;
}
