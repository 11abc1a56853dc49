/* cli/cli_main.h - the whole program as one function. */
#pragma once

/* argc/argv as main() has them; returns the exit status.  Once per process. */
int cli_main(int argc, char **argv);
