/* store/probe.h - is a file system fit for a directory store? */
#pragma once

struct err;
struct file_ops;

/* Hard links that are exclusive and counted, in the directory `path`; and on
 * NFS, the mount options that a repository needs.  ERR_UNSUPPORTED. */
int probe_dir(const char *path, const struct file_ops *ops, struct err *err);

/* What is missing among the options of an NFS mount, as /proc/self/mountinfo
 * shows them: "" when they are right.  Pure. */
const char *probe_nfs_options(const char *options);

/* The options of the NFS mount with this device number in the text of
 * /proc/self/mountinfo, as an allocated string; NULL when there is none. */
char *probe_mount_options(const char *mountinfo, unsigned major,
                          unsigned minor);
