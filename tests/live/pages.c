/* Makes visible what the kernel does: a write reaches the file page by page, in order.
 *
 * Between two pages a writer can be interrupted, for milliseconds on a busy machine, or
 * killed. Loaded before the C library, this makes a pause between any two pages. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/types.h>
#include <unistd.h>

enum { PAGE = 4096, PAUSE_US = 100 };

typedef ssize_t (*writing)(int, const void *, size_t, off_t);

static ssize_t by_pages(const char *name, int fd, const char *data, size_t count, off_t at)
{
    writing write_page = (writing)dlsym(RTLD_NEXT, name);
    size_t done = 0;
    while (done < count) {
        size_t part = PAGE - (at + done) % PAGE;
        ssize_t got = write_page(fd, data + done, part < count - done ? part : count - done,
                                 at + done);
        if (got < 0)
            return done ? (ssize_t)done : got;
        done += got;
        if (done < count)
            usleep(PAUSE_US);
    }
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t at)
{
    return by_pages("pwrite", fd, data, count, at);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off_t at)
{
    return by_pages("pwrite64", fd, data, count, at);
}
