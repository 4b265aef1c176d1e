/* A regular file that takes itself for a v4l2loopback device: preloaded, this library answers the
 * two V4L2 requests that pyvirtualcam makes of it, and lets write(2) go to the file as it is.
 * FAKE_V4L2_PATH names the file; FAKE_V4L2_LOG is a file that the format asked for is written to.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static int is_ours(int descriptor) {
    const char *path = getenv("FAKE_V4L2_PATH");
    struct stat ours, theirs;
    return path && !stat(path, &ours) && !fstat(descriptor, &theirs) &&
           ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

static void note_format(const struct v4l2_pix_format *format) {
    const char *path = getenv("FAKE_V4L2_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;
    if (!log) return;
    fprintf(log, "%ux%u %.4s\n", format->width, format->height, (const char *)&format->pixelformat);
    fclose(log);
}

int ioctl(int descriptor, unsigned long request, ...) {
    static int (*real)(int, unsigned long, ...);
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (!real) real = dlsym(RTLD_NEXT, "ioctl");
    if (request == VIDIOC_QUERYCAP && is_ours(descriptor)) {
        struct v4l2_capability *caps = argument;
        memset(caps, 0, sizeof *caps);
        strcpy((char *)caps->driver, "v4l2 loopback");
        strcpy((char *)caps->card, "fake");
        caps->device_caps = V4L2_CAP_VIDEO_OUTPUT | V4L2_CAP_READWRITE;
        caps->capabilities = caps->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    if (request == VIDIOC_S_FMT && is_ours(descriptor)) {
        note_format(&((struct v4l2_format *)argument)->fmt.pix);
        return 0;
    }
    return real(descriptor, request, argument);
}
