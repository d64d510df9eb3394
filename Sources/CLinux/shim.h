#pragma once
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/udp.h>

// Newer than Debian 12's headers; values from Linux include/uapi/linux/{if_tun,virtio_net,udp}.h.
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif

// ioctl request numbers are macros over sizeof, which Swift does not import.
enum {
  CULVERT_TUNSETIFF = TUNSETIFF,
  CULVERT_TUNSETOFFLOAD = TUNSETOFFLOAD,
  CULVERT_TUNSETPERSIST = TUNSETPERSIST,
  CULVERT_TUNGETFEATURES = TUNGETFEATURES,
  CULVERT_TUNGETIFF = TUNGETIFF,
  CULVERT_TUNSETVNETHDRSZ = TUNSETVNETHDRSZ,
  CULVERT_TUNGETDEVNETNS = TUNGETDEVNETNS,
  CULVERT_TUN_F_USO4 = TUN_F_USO4,
  CULVERT_TUN_F_USO6 = TUN_F_USO6,
  CULVERT_GSO_UDP_L4 = VIRTIO_NET_HDR_GSO_UDP_L4,
  CULVERT_UDP_SEGMENT = UDP_SEGMENT,
  CULVERT_UDP_GRO = UDP_GRO,
  CULVERT_SOL_UDP = SOL_UDP,
  CULVERT_CLONE_NEWNET = CLONE_NEWNET,
};

static inline int culvert_ioctl_pointer(int fd, unsigned long request, void *argument) {
  return ioctl(fd, request, argument);
}
static inline int culvert_ioctl_value(int fd, unsigned long request, unsigned long argument) {
  return ioctl(fd, request, argument);
}
static inline int culvert_open(const char *path, int flags) { return open(path, flags | O_CLOEXEC); }

// Declared by glibc for GNU sources only, which Swift's own C library module is not.
static inline int culvert_setns(int fd, int type) { return (int)syscall(SYS_setns, fd, type); }
static inline int culvert_unshare(int flags) { return (int)syscall(SYS_unshare, flags); }

// No Swift intrinsic for it: brings a cache line that is to be written soon.
static inline void culvert_prefetch(const void *address) { __builtin_prefetch(address, 1); }

// Has the sockets of a UDP port get packets by the last bits of the SPI, which is the payload's first word (RFC 3948).
// A filter that reads past the end of a packet answers 0.
static inline int culvert_steer_by_spi(int fd, unsigned int mask) {
  struct sock_filter code[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask), BPF_STMT(BPF_RET | BPF_A, 0),
  };
  struct sock_fprog program = {3, code};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
}

// Loads a program of 64-bit instructions that gives each packet of a TUN device its queue, and lets the device use it.
// Returns a negated errno.
static inline int culvert_steer_queues(int tun, const void *instructions, unsigned int count) {
  union bpf_attr attributes;
  __builtin_memset(&attributes, 0, sizeof attributes);
  attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attributes.insns = (__u64)(unsigned long)instructions;
  attributes.insn_cnt = count;
  attributes.license = (__u64)(unsigned long)"Dual MIT/GPL";
  int program = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes);
  if (program < 0) return -errno;
  int status = ioctl(tun, TUNSETSTEERINGEBPF, &program) < 0 ? -errno : 0;
  close(program);
  return status;
}

// For the lab: batches of datagrams, and descriptors that no child inherits even for a moment. GNU declarations again.
struct culvert_mmsghdr {
  struct msghdr header;
  unsigned int length;
};
static inline int culvert_sendmmsg(int fd, struct culvert_mmsghdr *messages, unsigned int count, int flags) {
  return (int)syscall(SYS_sendmmsg, fd, messages, count, flags);
}
static inline int culvert_recvmmsg(int fd, struct culvert_mmsghdr *messages, unsigned int count, int flags) {
  return (int)syscall(SYS_recvmmsg, fd, messages, count, flags, 0);
}
static inline int culvert_pipe_cloexec(int ends[2]) { return (int)syscall(SYS_pipe2, ends, O_CLOEXEC); }
static inline int culvert_accept_cloexec(int fd) { return (int)syscall(SYS_accept4, fd, 0, 0, O_CLOEXEC); }
static inline int culvert_set_thread_name(const char *name) { return (int)syscall(SYS_prctl, 15 /* PR_SET_NAME */, name, 0, 0, 0); }
static inline int culvert_set_timer_slack(unsigned long nanoseconds) {
  return (int)syscall(SYS_prctl, 29 /* PR_SET_TIMERSLACK */, nanoseconds, 0, 0, 0);
}

// For the hairpin proxy: moves bytes between a stream and a pipe without waiting, at most so many.
static inline long culvert_splice(int from, int to, unsigned long count) {
  return syscall(SYS_splice, from, (void *)0, to, (void *)0, count, 3 /* SPLICE_F_MOVE | SPLICE_F_NONBLOCK */);
}
enum { CULVERT_F_SETPIPE_SZ = 1031 };

// Takes one capability from the calling thread, for tests.
static inline int culvert_thread_drop_capability(int capability) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
  if (syscall(SYS_capget, &header, data) != 0) return -1;
  data[CAP_TO_INDEX(capability)].effective &= ~CAP_TO_MASK(capability);
  data[CAP_TO_INDEX(capability)].permitted &= ~CAP_TO_MASK(capability);
  return (int)syscall(SYS_capset, &header, data);
}
