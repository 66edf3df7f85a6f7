/* The guest's program: the agent, and the helpers that run under other names. */
#define _GNU_SOURCE
#include "guest.h"

#include <string.h>

static const struct call_table *const tables[] = {
    &handler_calls, &timer_calls,  &loop_calls,   &descriptor_calls, &runtime_calls, &tree_calls,
    &file_calls,    &status_calls, &project_calls, &beneath_calls,   &child_calls,   &process_calls,
    &aside_calls,   &socket_calls, &kernel_calls,  &namespace_calls, &text_calls,
#ifdef SCENARIOS
    &scenario_calls,
#endif
    NULL,
};

int main(int argc, char **argv)
{
    const char *name = argc > 0 ? argv[0] : "";

    if (strcmp(name, "podvm-enter") == 0) enter_main();
    if (strcmp(name, "podvm-pause") == 0) return pause_main();
    if (strcmp(name, "/bin/podvm-modprobe") == 0) return modprobe_main(argc, argv);
    if (strcmp(name, "podvm-pump") == 0) return pump_main();
    if (strcmp(name, "podvm-look") == 0) return look_main(argc, argv);
    if (strcmp(name, "podvm-unmount") == 0) return unmount_main(argc, argv);
    run_engine(argc, argv, tables, children_start);
}
