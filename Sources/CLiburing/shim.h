#pragma once
// Before liburing.h, which asks for another flavour of libc's types than Swift's own C library module has.
#include <sys/types.h>
#include <liburing.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

// Newer than Debian 12's headers; values from Linux include/uapi/linux/io_uring.h.
enum { CULVERT_OP_READ_MULTISHOT = 49 };

static inline void culvert_prep_read_multishot(struct io_uring_sqe *sqe, int fd, unsigned short group) {
  io_uring_prep_rw(CULVERT_OP_READ_MULTISHOT, sqe, fd, 0, 0, (__u64)-1);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = group;
}

static inline void culvert_prep_receive_multishot(struct io_uring_sqe *sqe, int fd, unsigned short group) {
  io_uring_prep_recv_multishot(sqe, fd, 0, 0, 0);
  sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = group;
}

static inline void culvert_select_buffer(struct io_uring_sqe *sqe, unsigned short group) {
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = group;
}

static inline void culvert_use_fixed_file(struct io_uring_sqe *sqe) { sqe->flags |= IOSQE_FIXED_FILE; }

static inline unsigned culvert_cq_ready(const struct io_uring *ring) { return io_uring_cq_ready(ring); }

// The kernel writes the completion flags' upper half with the buffer id.
static inline unsigned short culvert_cqe_buffer(unsigned flags) {
  return (unsigned short)(flags >> IORING_CQE_BUFFER_SHIFT);
}

// Declared by liburing 2.3, but missing from its shared library.
static inline int culvert_enable_rings(struct io_uring *ring) {
  return (int)syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, 0, 0);
}
