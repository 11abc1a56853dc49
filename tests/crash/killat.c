/* Kill a program with SIGKILL before its Nth system call that concerns files.
 *
 *     killat N COMMAND [ARG...]
 *
 * Counted over all threads, in the order in which the kernel sees them.  N of 0
 * only counts.  The last line on stderr is "killat: killed at N: NAME" or
 * "killat: N calls", the status that of the command, 137 when it was killed.
 *
 * A seccomp filter stops the threads at these calls only, before they do
 * anything; so this is several times faster than stopping at all of them.
 * Calls that only look at memory, locks or time leave the same files behind as
 * the call before them, so that killing there would prove nothing new.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static const struct {
    int nr;
    const char *name;
} calls[] = {
    {SYS_openat, "openat"},       {SYS_close, "close"},
    {SYS_read, "read"},           {SYS_pread64, "pread64"},
    {SYS_write, "write"},         {SYS_pwrite64, "pwrite64"},
    {SYS_fsync, "fsync"},         {SYS_fdatasync, "fdatasync"},
    {SYS_syncfs, "syncfs"},       {SYS_linkat, "linkat"},
    {SYS_unlinkat, "unlinkat"},   {SYS_renameat2, "renameat2"},
    {SYS_mkdirat, "mkdirat"},     {SYS_newfstatat, "newfstatat"},
    {SYS_getdents64, "getdents"}, {SYS_ftruncate, "ftruncate"},
    {SYS_fallocate, "fallocate"}, {SYS_exit_group, "exit_group"},
#ifdef SYS_link /* not on newer architectures */
    {SYS_link, "link"},           {SYS_unlink, "unlink"},
    {SYS_rename, "rename"},       {SYS_mkdir, "mkdir"},
    {SYS_rmdir, "rmdir"},         {SYS_open, "open"},
    {SYS_stat, "stat"},
#endif
};

static void
die(const char *what)
{
    perror(what);
    exit(99);
}

/* In the child: stop for the tracer at each of `calls`. */
static void
install_filter(void)
{
    struct sock_filter code[2 + 2 * ARRAY_SIZE(calls)];
    struct sock_fprog prog = {.filter = code};
    size_t n = 0;

    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                 (unsigned)calls[i].nr, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(
            BPF_RET | BPF_K, SECCOMP_RET_TRACE | (unsigned)i);
    }
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    prog.len = (unsigned short)n;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
        die("killat: seccomp");
}

static pid_t
start(char **argv)
{
    pid_t pid = fork();

    if (pid < 0)
        die("killat: fork");
    if (pid > 0)
        return pid;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        die("killat: ptrace");
    (void)raise(SIGSTOP); /* until the tracer has set its options */
    install_filter();
    (void)execvp(argv[0], argv);
    die(argv[0]);
    return -1;
}

/* One stop of thread `tid`: true when it was at one of `calls`, *ret_call which;
 * otherwise *ret_sig is the signal to hand on. */
static int
at_call(pid_t tid, int status, unsigned long *ret_call, int *ret_sig)
{
    int event = status >> 16;

    *ret_sig = 0;
    if (event == PTRACE_EVENT_SECCOMP)
        return ptrace(PTRACE_GETEVENTMSG, tid, NULL, ret_call) == 0;
    /* the first stop of a new thread, and exec, are no signals for anybody */
    if (event == 0 && WSTOPSIG(status) != SIGSTOP &&
        WSTOPSIG(status) != SIGTRAP)
        *ret_sig = WSTOPSIG(status);
    return 0;
}

static int
follow(pid_t pid, unsigned long at)
{
    unsigned long n = 0, call = 0;
    int status, sig;

    for (;;) {
        pid_t tid = waitpid(-1, &status, __WALL);

        if (tid < 0)
            die("killat: waitpid");
        if (tid == pid && (WIFEXITED(status) || WIFSIGNALED(status)))
            break;
        if (!WIFSTOPPED(status))
            continue;
        if (at_call(tid, status, &call, &sig) && ++n == at) {
            (void)kill(pid, SIGKILL);
            (void)fprintf(stderr, "killat: killed at %lu: %s\n", n,
                          calls[call].name);
            continue; /* SIGKILL needs no word of ours */
        }
        (void)ptrace(PTRACE_CONT, tid, NULL, (long)sig);
    }
    (void)fprintf(stderr, "killat: %lu calls\n", n);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int
main(int argc, char **argv)
{
    int status;
    pid_t pid;

    if (argc < 3) {
        (void)fprintf(stderr, "usage: killat N COMMAND [ARG...]\n");
        return 64;
    }
    pid = start(argv + 2);
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        die("killat: start");
    if (ptrace(PTRACE_SETOPTIONS, pid, NULL,
               PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC |
                   PTRACE_O_TRACESECCOMP) < 0 ||
        ptrace(PTRACE_CONT, pid, NULL, 0) < 0)
        die("killat: ptrace");
    return follow(pid, strtoul(argv[1], NULL, 10));
}
