"""Which system calls a program may make: an allow-list. Whatever is not named does not exist (ENOSYS)."""

from __future__ import annotations

import errno

from rewards.sandbox.kernel.bpf import AnyBit, NoBit, NoneOf, Null, OneOf, Policy, Rule

#: Stands for the process's own id until `seccomp.with_pid` puts it in. No pid is as large.
OWN_PID = 0x7EAD1D77

_CLONE_THREAD, _CLONE_NEW_ANYTHING = 0x10000, 0x7E020080
_O_TRUNC, _O_WRITES = 0x200, 0x3
_SIGKILL, _SIGSTOP = 9, 19
_AF_UNIX = 1
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA = 15, 16, 0x53564D41
_TCGETS, _TIOCGWINSZ, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451
#: Not F_SETOWN, F_SETSIG, F_SETLEASE, F_NOTIFY: they make the kernel send a signal of the caller's choice.
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)

_ALLOWED = """
read write close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64
pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise dup dup2 pause nanosleep getitimer
alarm setitimer getpid sendfile recvfrom shutdown getsockname getpeername setsockopt getsockopt exit wait4 uname flock
fsync fdatasync ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink umask
gettimeofday getrlimit getrusage sysinfo times getuid getgid geteuid getegid getppid getpgrp getgroups getresuid
getresgid getpgid getsid rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack statfs fstatfs sched_getparam
sched_getscheduler sched_get_priority_max sched_get_priority_min gettid readahead time futex sched_getaffinity
epoll_create getdents64 set_tid_address restart_syscall fadvise64 clock_gettime clock_getres clock_nanosleep exit_group
epoll_wait epoll_ctl waitid mkdirat newfstatat unlinkat renameat linkat symlinkat readlinkat faccessat pselect6 ppoll
set_robust_list get_robust_list epoll_pwait timerfd_create eventfd timerfd_settime timerfd_gettime eventfd2
epoll_create1 dup3 pipe2 preadv pwritev getcpu renameat2 getrandom membarrier copy_file_range statx rseq close_range
faccessat2 epoll_pwait2 futex_waitv sched_getattr fallocate
"""

#: These exist, and are not for programs: an honest error instead of "function not implemented".
_REFUSED = """
fork vfork execve execveat socket connect accept accept4 sendmsg recvmsg sendmmsg bind listen ptrace process_vm_readv
process_vm_writev tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal pidfd_getfd chmod fchmod fchmodat
chown fchown lchown fchownat utime utimes utimensat setxattr lsetxattr fsetxattr mknod mknodat truncate mount umount2
pivot_root chroot unshare setns bpf keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register
userfaultfd perf_event_open memfd_create memfd_secret shmget shmat shmctl semget msgget setrlimit setpriority
sched_setaffinity sched_setscheduler sched_setparam personality setuid setgid setresuid setresgid setgroups capset
seccomp kcmp inotify_init inotify_init1 fanotify_init name_to_handle_at open_by_handle_at mq_open sethostname mlock
mlockall mlock2 setpgid setsid timer_create vmsplice splice tee arch_prctl
"""


def program_policy() -> Policy:
    """For judge and candidate alike: no other process, no network, no signal but to itself."""
    eperm = errno.EPERM
    # Landlock before its third version does not govern truncation, which opening for reading can do too.
    open_rule = {2: Rule(((NoBit(2, _O_TRUNC),), (AnyBit(2, _O_WRITES),)), eperm)}
    open_rule[1] = Rule(((NoBit(1, _O_TRUNC),), (AnyBit(1, _O_WRITES),)), eperm)
    return Policy(
        allowed=frozenset(_ALLOWED.split()),
        ruled={
            "clone": Rule(((AnyBit(0, _CLONE_THREAD), NoBit(0, _CLONE_NEW_ANYTHING)),), eperm),
            "kill": _own_signals(1),
            "tgkill": _own_signals(2),
            "fcntl": Rule(((OneOf(1, _FCNTL_COMMANDS),),), eperm),
            "ioctl": Rule(
                ((OneOf(1, (_TCGETS, _TIOCGWINSZ, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX)),),), errno.ENOTTY
            ),
            "prctl": Rule(((OneOf(0, (_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA)),),), eperm),
            "prlimit64": Rule(((Null(2),),), eperm),
            "sendto": Rule(((Null(4),),), eperm),  # only what is connected: asyncio's own pair of sockets
            "socketpair": Rule(((OneOf(0, (_AF_UNIX,)),),), eperm),
            "openat": open_rule[2],
            "open": open_rule[1],
        },
        refused=dict.fromkeys(_REFUSED.split(), eperm),
        otherwise=errno.ENOSYS,  # glibc then falls back from clone3, whose flags a filter can't read, to clone
    )


#: What a zygote needs beyond what programs may do.
_ZYGOTE_ONLY = frozenset(["recvmsg", "pidfd_open", "setsid", "seccomp", "chmod", "fchmodat"])
_ZYGOTE_FREELY = frozenset(("kill", "tgkill", "prlimit64"))
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def zygote_policy() -> Policy:
    """For a zygote, and through it for everything it starts: installed once, since a large filter costs 0.4 ms."""
    program = program_policy()
    prctl = OneOf(0, (_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA, _PR_SET_PDEATHSIG, _PR_SET_DUMPABLE))
    own = {
        "clone": Rule(((NoBit(0, _CLONE_NEW_ANYTHING),),), errno.EPERM),
        "prctl": Rule(((prctl,),), errno.EPERM),
    }
    return Policy(
        allowed=program.allowed | _ZYGOTE_ONLY | _ZYGOTE_FREELY,
        ruled={name: rule for name, rule in program.ruled.items() if name not in _ZYGOTE_FREELY} | own,
        refused={name: number for name, number in program.refused.items() if name not in _ZYGOTE_ONLY},
        otherwise=program.otherwise,
    )


def child_policy() -> Policy:
    """What a judge or guest gives up on top: with `zygote_policy` it makes `program_policy`."""
    program = program_policy()
    return Policy(
        allowed=frozenset(),
        ruled={name: program.ruled[name] for name in (*sorted(_ZYGOTE_FREELY), "clone", "prctl")},
        refused={name: program.refused[name] for name in _ZYGOTE_ONLY},
        otherwise=None,
    )


def _own_signals(signal_at: int) -> Rule:
    """Its own SIGKILL would look like the out-of-memory killer's, SIGSTOP like a machine that hangs."""
    return Rule(((OneOf(0, (OWN_PID,)), NoneOf(signal_at, (_SIGKILL, _SIGSTOP))),), errno.EPERM)
