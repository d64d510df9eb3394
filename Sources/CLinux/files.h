#pragma once
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <linux/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

// Locks bytes of a file for this opening of it, or gives them back: 0, or a negated errno; -EAGAIN: another has them.
static inline int culvert_lock_range(int file, long start, long length, int locks) {
  struct flock range;
  memset(&range, 0, sizeof range);
  range.l_type = locks ? F_WRLCK : F_UNLCK;
  range.l_whence = SEEK_SET;
  range.l_start = start;
  range.l_len = length;
  if (fcntl(file, F_OFD_SETLK, &range) == 0) return 0;
  return errno == EACCES ? -EAGAIN : -errno;
}

// When an open file was made, in nanoseconds since 1970; 0 where the file system does not know. Nobody can set it.
static inline unsigned long long culvert_birth(int file) {
  struct statx status;
  memset(&status, 0, sizeof status);
  if (syscall(SYS_statx, file, "", AT_EMPTY_PATH, STATX_BTIME, &status) != 0) return 0;
  if ((status.stx_mask & STATX_BTIME) == 0) return 0;
  return (unsigned long long)status.stx_btime.tv_sec * 1000000000ull + status.stx_btime.tv_nsec;
}

// An attribute of a file that says no more than that it is there.
static inline int culvert_has_mark(const char *path, const char *name) { return getxattr(path, name, NULL, 0) >= 0; }
static inline int culvert_set_mark(const char *path, const char *name) {
  return setxattr(path, name, "1", 1, 0) == 0 ? 0 : -errno;
}
static inline int culvert_remove_mark(const char *path, const char *name) {
  return removexattr(path, name) == 0 ? 0 : -errno;
}
