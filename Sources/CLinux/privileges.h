#pragma once
#include <dirent.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// Every function here returns 0, or a negated errno.

// Nobody reads the process's memory, and a crash writes none of it to disk, nor to the log: a handler that the language's
// runtime has for crashes would print registers, and what they point to.
static inline int culvert_guard_memory(void) {
  static const int crashes[] = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGQUIT};
  for (size_t index = 0; index < sizeof crashes / sizeof *crashes; index++) signal(crashes[index], SIG_DFL);
  struct rlimit none = {0, 0};
  return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0 ? -errno : 0;
}

// Takes from the calling thread what is not among `kept`, a bit for each capability, and has no program that it starts
// get anything back.
static inline int culvert_keep_capabilities_here(unsigned long long kept) {
  if (syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -errno;
  // Whoever may not do this has none that a program could get back; and the kernel knows fewer than 64.
  for (unsigned long capability = 0; capability < 64; capability++)
    if ((kept >> capability & 1) == 0) syscall(SYS_prctl, PR_CAPBSET_DROP, capability, 0, 0, 0);
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
  if (syscall(SYS_capget, &header, data) != 0) return -errno;
  for (int word = 0; word < _LINUX_CAPABILITY_U32S_3; word++) {
    __u32 mask = (__u32)(kept >> (32 * word));
    data[word].permitted &= mask;
    data[word].effective = data[word].permitted;
    data[word].inheritable &= mask;
  }
  return syscall(SYS_capset, &header, data) != 0 ? -errno : 0;
}

// What the other threads' handlers need to know and say.
struct culvert_reduction {
  unsigned long long kept;
  int answers;
  int failure;
};
static inline struct culvert_reduction *culvert_the_reduction(void) {
  static struct culvert_reduction reduction;
  return &reduction;
}

static inline void culvert_reduce_in_handler(int number) {
  (void)number;
  int saved = errno;
  struct culvert_reduction *reduction = culvert_the_reduction();
  int status = culvert_keep_capabilities_here(reduction->kept);
  if (status != 0) __atomic_store_n(&reduction->failure, status, __ATOMIC_SEQ_CST);
  __atomic_fetch_add(&reduction->answers, 1, __ATOMIC_SEQ_CST);
  errno = saved;
}

// The kernel's own threads for this process's rings take no signals, and do what is asked with the asker's rights.
static inline int culvert_is_ring_thread(const char *thread) {
  char path[64] = "/proc/self/task/", name[8] = {0};
  strncat(path, thread, 20);
  strcat(path, "/comm");
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 1;
  long count = read(file, name, 4);
  close(file);
  return count < 4 || memcmp(name, "iou-", 4) == 0;
}

// Takes from all threads what is not among `kept`. The kernel changes a thread's capabilities for that thread alone, so
// each is asked by a signal. It is the one that the C library keeps for changes of user numbers: threads that block all
// signals, as those of thread pools do, do not block it.
static inline int culvert_keep_capabilities(unsigned long long kept) {
  enum { theirs = 33, seen_most = 1024 };
  char mine[64] = {0}, before[64] = {0};
  struct sigaction usual, old;
  memset(&usual, 0, sizeof usual);
  usual.sa_handler = culvert_reduce_in_handler;
  usual.sa_flags = SA_RESTART;
  sigfillset(&usual.sa_mask);
  struct culvert_reduction *reduction = culvert_the_reduction();
  reduction->kept = kept;
  reduction->answers = 0;
  reduction->failure = 0;
  // The C library makes of it what the kernel wants, but not for the number that is meant.
  if (sigaction(SIGRTMAX, &usual, &old) != 0) return -errno;
  long status = syscall(SYS_rt_sigaction, SIGRTMAX, NULL, mine, 8);
  if (status == 0) status = syscall(SYS_rt_sigaction, theirs, mine, before, 8);
  int failure = status == 0 ? 0 : -errno;
  sigaction(SIGRTMAX, &old, NULL);
  if (failure != 0) return failure;

  int seen[seen_most], count = 0, asked = 0;
  long self = syscall(SYS_gettid);
  // Threads that begin meanwhile have what those have that begin them.
  for (int news = 1; news && failure == 0;) {
    news = 0;
    DIR *threads = opendir("/proc/self/task");
    if (threads == NULL) {
      failure = -errno;
      break;
    }
    for (struct dirent *entry; failure == 0 && (entry = readdir(threads)) != NULL;) {
      int thread = atoi(entry->d_name), known = thread <= 0 || thread == self;
      for (int i = 0; !known && i < count; i++) known = seen[i] == thread;
      if (known) continue;
      if (count == seen_most) {
        failure = -E2BIG;
        break;
      }
      seen[count++] = thread;
      news = 1;
      if (culvert_is_ring_thread(entry->d_name)) continue;
      if (syscall(SYS_tgkill, getpid(), thread, theirs) != 0) continue;
      asked += 1;
      for (int wait = 0; __atomic_load_n(&reduction->answers, __ATOMIC_SEQ_CST) < asked; wait++) {
        struct timespec pause = {0, 100000};
        nanosleep(&pause, NULL);
        // It may have ended.
        if (syscall(SYS_tgkill, getpid(), thread, 0) != 0) {
          asked = __atomic_load_n(&reduction->answers, __ATOMIC_SEQ_CST);
          break;
        }
        if (wait == 20000) {
          failure = -ETIMEDOUT;
          break;
        }
      }
    }
    closedir(threads);
  }
  syscall(SYS_rt_sigaction, theirs, before, NULL, 8);
  if (failure == 0) failure = reduction->failure;
  return failure != 0 ? failure : culvert_keep_capabilities_here(kept);
}

// Has the kernel refuse, with EPERM, system calls that no VPN needs, to all threads and for good.
static inline int culvert_filter_system_calls(int allows_programs) {
  static const int refused[] = {
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kexec_load, SYS_init_module, SYS_finit_module,
    SYS_delete_module, SYS_bpf, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_unshare, SYS_setns,
    SYS_perf_event_open, SYS_add_key, SYS_request_key, SYS_keyctl, SYS_userfaultfd, SYS_swapon, SYS_swapoff, SYS_reboot,
    SYS_acct, SYS_quotactl, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_sethostname,
    SYS_setdomainname, SYS_personality, SYS_open_by_handle_at,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef SYS_iopl
    SYS_iopl, SYS_ioperm,
#endif
#ifdef SYS_move_mount
    SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick,
#endif
#ifdef SYS_pidfd_getfd
    SYS_pidfd_getfd,
#endif
    SYS_execve, SYS_execveat,
  };
  enum { most = sizeof refused / sizeof *refused };
#if defined(__x86_64__)
  const unsigned int architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  const unsigned int architecture = AUDIT_ARCH_AARCH64;
#else
  return -ENOSYS;
#endif
  struct sock_filter code[most + 8];
  int count = most - (allows_programs ? 2 : 0), at = 0;
  int end = 4 + count + 1;
  code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
  code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, architecture, 0, (__u8)(end - at - 1));
  code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  // Numbers of the x32 interface.
  code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, (__u8)(end - at - 1), 0);
  for (int i = 0; i < count; i++)
    code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (__u32)refused[i], (__u8)(end - at - 1), 0);
  code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  struct sock_fprog program = {(unsigned short)at, code};
  long status = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
  // A positive number is that of a thread that has filters of its own.
  return status > 0 ? -EBUSY : status < 0 ? -errno : 0;
}
