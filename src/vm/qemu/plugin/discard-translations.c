/*
 * A plugin of QEMU that discards all translated code when the process gets SIGRTMAX, and gives the memory back to the host.
 * QEMU itself discards it only when its memory is full, and then uses the same memory again.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

/* What a plugin has of QEMU 10.0: version 4 of its interface for them. */
typedef uint64_t plugin_id;
extern void qemu_plugin_register_vcpu_resume_cb(plugin_id, void (*)(plugin_id, unsigned vcpu));
extern void qemu_plugin_reset(plugin_id, void (*)(plugin_id));
EXPORTED int qemu_plugin_version = 4;

/* No part of the interface: an address of the code that QEMU writes at the beginning of this memory when it starts. */
extern const void *tcg_code_gen_epilogue __attribute__((weak));

static size_t code_bytes;
static atomic_bool is_wanted;

static void want(int signal)
{
    (void)signal;
    atomic_store(&is_wanted, true);
}

static void resumed(plugin_id id, unsigned vcpu);

/* Runs when QEMU has forgotten all translations, and while no processor runs. */
static void give_back(plugin_id id)
{
    uintptr_t page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first_page = (uintptr_t)tcg_code_gen_epilogue & ~(page_bytes - 1); /* it keeps QEMU's own code */

    madvise((void *)(first_page + page_bytes), code_bytes - page_bytes, MADV_DONTNEED);
    malloc_trim(0); /* of the tables of translations */
    qemu_plugin_register_vcpu_resume_cb(id, resumed);
}

/* Runs when a processor that had nothing to do goes on, in its thread: only there QEMU discards translations. */
static void resumed(plugin_id id, unsigned vcpu)
{
    (void)vcpu;
    if (atomic_exchange(&is_wanted, false)) qemu_plugin_reset(id, give_back);
}

/* The argument is `bytes=N`: the size of the memory. Does nothing in a QEMU that is made otherwise. */
EXPORTED int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    struct sigaction action = {.sa_handler = want, .sa_flags = SA_RESTART};

    (void)info;
    if (argc != 1 || sscanf(argv[0], "bytes=%zu", &code_bytes) != 1 || code_bytes == 0) return -1;
    if (&tcg_code_gen_epilogue == NULL) return 0;
    qemu_plugin_register_vcpu_resume_cb(id, resumed);
    sigaction(SIGRTMAX, &action, NULL);
    return 0;
}
