/* store/dir.h - what the files of the directory store share. */
#pragma once

struct err;
struct file_ops;

#define DIR_TMP_PREFIX ".tmp-"

/* Names of objects below "session/" that store_self_test() makes. */
#define STORE_TEST_PREFIX "test-"

/* Make the names in a directory durable. */
int dir_sync(const struct file_ops *ops, const char *path, struct err *err);

/* "a/b" -> "a", "a" -> ".", "/a" -> "/"; allocated, NULL without memory. */
char *dir_parent(const char *path);
