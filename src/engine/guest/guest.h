/* Functions that the C files of the guest's program share. */
#ifndef PODVM_GUEST_H
#define PODVM_GUEST_H

#include "engine.h"

/* Starts to wait for ended children, and for orphans as PID 1 or subreaper. */
bool children_start(void);

/* aside.c: frees the place of a process that has ended, if it had one. */
void aside_ended(pid_t pid);

/* The path is also in module-requests.ts. */
#define MODPROBE_SOCKET "/run/podvm/modprobe.sock"

/* Programs under other names, started from the same binary. */
_Noreturn void enter_main(void);
int modprobe_main(int argc, char **argv);
int pause_main(void);
int pump_main(void);
int look_main(int argc, char **argv);
int unmount_main(int argc, char **argv);

extern const struct call_table aside_calls, beneath_calls, child_calls, file_calls, kernel_calls, namespace_calls,
    process_calls, project_calls, socket_calls, status_calls, text_calls, tree_calls;
#ifdef SCENARIOS
extern const struct call_table scenario_calls;
#endif

#endif
