/*
 * Copyright (c) 2026, the erni_ki.inference team
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A stand-in for NVIDIA's management library, for machines without a card: what it answers is what a file says. It is not NVIDIA's
 * library, talks to no driver and drives nothing. README.md has the file's format.
 *
 *     cc -shared -fPIC -o libnvidia-ml.so.1 nvml.c
 *
 * -DBRANCH=470 leaves out the functions that came after that branch of the driver, as such a driver's library does.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef BRANCH
#define BRANCH 580
#endif
#define DATA_FILE "/etc/standin-nvidia/card.conf"
#define MAX_CARDS 8
#define MAX_PROCESSES 64
#define MAX_RULES 32
#define MIB (1024ULL * 1024ULL)
#define NOT_AVAILABLE (~0ULL)
#define ABSENT (-1L)

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, NOT_LOADED = 9,
       ARGUMENT_VERSION = 25 };

/* Whoever wonders which library this is may look for this name: `nm -D libnvidia-ml.so.1 | grep standin`. */
const char standin_nvml[] = "erni_ki.inference: a stand-in for NVML, no NVIDIA software";

struct process {
    unsigned pid;
    char type;                      /* C compute, G graphics, M compute under MPS */
    unsigned long long bytes;
    char name[256];
};

struct card {
    char name[96], uuid[96], bus_id[32];
    long total_mib, used_mib, reserved_mib, cc_major, cc_minor, architecture, mig, ecc, power_limit_mw, power_mw, utilization, temperature, device_id, subsystem_id;
    struct process processes[MAX_PROCESSES];
    int process_count;
};

/* What goes wrong, in which functions, for which card (-1: for all). */
struct rule {
    char what[8], function[64];
    int code, card;
};

static struct card cards[MAX_CARDS];
static struct rule rules[MAX_RULES];
static int card_count, rule_count, initialized;
static long cuda_version;
static char driver_version[80], nvml_version[80];

typedef struct card *device;

static void copy(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
}

static void add_process(struct card *card, const char *value)
{
    struct process *process = &card->processes[card->process_count];
    char size[32] = "";
    unsigned pid = 0;
    char type = 'C';

    memset(process, 0, sizeof *process);
    if (card->process_count == MAX_PROCESSES || sscanf(value, "%u %c %31s %255[^\n]", &pid, &type, size, process->name) < 3)
        return;
    process->pid = pid;
    process->type = type;
    process->bytes = strcmp(size, "-") ? strtoull(size, NULL, 10) * MIB : NOT_AVAILABLE;
    card->process_count++;
}

static void add_rule(const char *what, const char *value, int card)
{
    struct rule *rule = &rules[rule_count];

    if (rule_count == MAX_RULES)
        return;
    memset(rule, 0, sizeof *rule);
    copy(rule->what, sizeof rule->what, what);
    if (sscanf(value, "%63s %d", rule->function, &rule->code) < 1)
        return;
    rule->card = card;
    rule_count++;
}

static void set_of_card(struct card *card, const char *key, const char *value)
{
    struct { const char *key; long *to; } numbers[] = {
        {"total_mib", &card->total_mib}, {"used_mib", &card->used_mib}, {"reserved_mib", &card->reserved_mib},
        {"architecture", &card->architecture}, {"mig", &card->mig}, {"ecc", &card->ecc}, {"power_limit_mw", &card->power_limit_mw},
        {"power_mw", &card->power_mw}, {"utilization", &card->utilization},
        {"temperature", &card->temperature}, {"device_id", &card->device_id}, {"subsystem_id", &card->subsystem_id},
    };
    size_t i;

    if (!strcmp(key, "name"))
        copy(card->name, sizeof card->name, value);
    else if (!strcmp(key, "uuid"))
        copy(card->uuid, sizeof card->uuid, value);
    else if (!strcmp(key, "bus_id"))
        copy(card->bus_id, sizeof card->bus_id, value);
    else if (!strcmp(key, "process"))
        add_process(card, value);
    else if (!strcmp(key, "compute_capability"))
        sscanf(value, "%ld.%ld", &card->cc_major, &card->cc_minor);
    else
        for (i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
            if (!strcmp(key, numbers[i].key))
                *numbers[i].to = strtol(value, NULL, 0);
}

static struct card *add_card(void)
{
    struct card *card = &cards[card_count];

    if (card_count == MAX_CARDS)
        return card - 1;
    memset(card, 0, sizeof *card);
    card->total_mib = card->reserved_mib = card->cc_major = card->architecture = card->mig = card->ecc = ABSENT;
    card->power_limit_mw = card->power_mw = card->utilization = card->temperature = ABSENT;
    card_count++;
    return card;
}

/* The file is read anew for every call, so that a program that runs sees the card fail. Returns 0 without a file. */
static int load(void)
{
    const char *path = getenv("STANDIN_NVML");
    FILE *file = fopen(path && *path ? path : DATA_FILE, "r");
    struct card *card = NULL;
    char line[512], *value;

    if (!file)
        return 0;
    card_count = rule_count = 0;
    cuda_version = ABSENT;
    *driver_version = *nvml_version = 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!strcmp(line, "[gpu]"))
            card = add_card();
        value = strchr(line, '=');
        if (*line == '#' || !value)
            continue;
        *value++ = 0;
        if (!strcmp(line, "fail") || !strcmp(line, "hang") || !strcmp(line, "crash"))
            add_rule(line, value, card ? (int)(card - cards) : -1);
        else if (card)
            set_of_card(card, line, value);
        else if (!strcmp(line, "driver_version"))
            copy(driver_version, sizeof driver_version, value);
        else if (!strcmp(line, "nvml_version"))
            copy(nvml_version, sizeof nvml_version, value);
        else if (!strcmp(line, "cuda_version"))
            cuda_version = strtol(value, NULL, 0);
    }
    fclose(file);
    return 1;
}

/* A rule names a function by its beginning: nvmlInit is any of its versions, nvml is everything. */
static int obey(const char *function, int card)
{
    int i;

    for (i = 0; i < rule_count; i++) {
        if (strncmp(function, rules[i].function, strlen(rules[i].function)) || (rules[i].card != -1 && rules[i].card != card))
            continue;
        if (!strcmp(rules[i].what, "crash"))
            raise(SIGSEGV);
        while (!strcmp(rules[i].what, "hang"))
            pause();
        return rules[i].code;
    }
    return SUCCESS;
}

static int enter(const char *function, int card)
{
    if (!initialized)
        return UNINITIALIZED;
    return load() ? obey(function, card) : NOT_LOADED;
}

static int enter_card(const char *function, device card)
{
    /* The check comes after the file was read: there may be fewer cards now. */
    int code = enter(function, card ? (int)(card - cards) : -1);

    return code ? code : card >= cards && card < cards + card_count ? SUCCESS : INVALID_ARGUMENT;
}

#define ENTER() do { int code_ = enter(__func__, -1); if (code_) return code_; } while (0)
#define ENTER_CARD(card) do { int code_ = enter_card(__func__, card); if (code_) return code_; } while (0)

static int give_text(const char *text, char *to, unsigned size)
{
    if (!*text)
        return NOT_SUPPORTED;
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    copy(to, size, text);
    return SUCCESS;
}

static int give_number(long number, unsigned *to)
{
    if (number == ABSENT)
        return NOT_SUPPORTED;
    *to = (unsigned)number;
    return SUCCESS;
}

static int initialize(const char *function)
{
    int code = load() ? obey(function, -1) : NOT_LOADED;

    initialized = !code;
    return code;
}

int nvmlInit_v2(void) { return initialize(__func__); }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return initialize(__func__); }
int nvmlShutdown(void) { ENTER(); initialized = 0; return SUCCESS; }

const char *nvmlErrorString(int code)
{
    static char words[64];

    snprintf(words, sizeof words, "the stand-in says %d", code);
    return words;
}

int nvmlSystemGetNVMLVersion(char *version, unsigned size)
{
    /* The one question that is answered before everything else. */
    int code = load() ? obey(__func__, -1) : SUCCESS;

    return code ? code : give_text(nvml_version, version, size);
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) { ENTER(); return give_text(driver_version, version, size); }
int nvmlSystemGetCudaDriverVersion(unsigned *version) { ENTER(); return give_number(cuda_version, version); }
int nvmlSystemGetCudaDriverVersion_v2(unsigned *version) { ENTER(); return give_number(cuda_version, version); }

int nvmlSystemGetProcessName(unsigned pid, char *name, unsigned size)
{
    int i, j;

    ENTER();
    for (i = 0; i < card_count; i++)
        for (j = 0; j < cards[i].process_count; j++)
            if (cards[i].processes[j].pid == pid && *cards[i].processes[j].name)
                return give_text(cards[i].processes[j].name, name, size);
    return NOT_FOUND;
}

int nvmlDeviceGetCount_v2(unsigned *count) { ENTER(); *count = (unsigned)card_count; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *card)
{
    int code = enter(__func__, (int)index);

    if (code)
        return code;
    if (index >= (unsigned)card_count)
        return INVALID_ARGUMENT;
    *card = &cards[index];
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device *card)
{
    int i;

    ENTER();
    for (i = 0; i < card_count; i++)
        if (!strcmp(cards[i].uuid, uuid)) {
            *card = &cards[i];
            return enter(__func__, i);
        }
    return NOT_FOUND;
}

int nvmlDeviceGetName(device card, char *name, unsigned size) { ENTER_CARD(card); return give_text(card->name, name, size); }
int nvmlDeviceGetUUID(device card, char *uuid, unsigned size) { ENTER_CARD(card); return give_text(card->uuid, uuid, size); }
int nvmlDeviceGetPowerManagementLimit(device card, unsigned *mw) { ENTER_CARD(card); return give_number(card->power_limit_mw, mw); }
int nvmlDeviceGetEnforcedPowerLimit(device card, unsigned *mw) { ENTER_CARD(card); return give_number(card->power_limit_mw, mw); }
int nvmlDeviceGetPowerUsage(device card, unsigned *mw) { ENTER_CARD(card); return give_number(card->power_mw, mw); }

int nvmlDeviceGetUtilizationRates(device card, unsigned *rates)
{
    ENTER_CARD(card);
    /* That of the memory bus comes second. */
    rates[1] = 0;
    return give_number(card->utilization, rates);
}

int nvmlDeviceGetTemperature(device card, unsigned sensor, unsigned *celsius)
{
    ENTER_CARD(card);
    return sensor ? INVALID_ARGUMENT : give_number(card->temperature, celsius);
}

int nvmlDeviceGetCudaComputeCapability(device card, int *major, int *minor)
{
    ENTER_CARD(card);
    *minor = (int)card->cc_minor;
    return give_number(card->cc_major, (unsigned *)major);
}

int nvmlDeviceGetEccMode(device card, unsigned *current, unsigned *pending)
{
    ENTER_CARD(card);
    return give_number(card->ecc, current) ? NOT_SUPPORTED : give_number(card->ecc, pending);
}

struct pci_info {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

int nvmlDeviceGetPciInfo_v3(device card, struct pci_info *info)
{
    ENTER_CARD(card);
    memset(info, 0, sizeof *info);
    if (sscanf(card->bus_id, "%x:%x:%x", &info->domain, &info->bus, &info->device) != 3)
        return NOT_SUPPORTED;
    copy(info->bus_id, sizeof info->bus_id, card->bus_id);
    snprintf(info->bus_id_legacy, sizeof info->bus_id_legacy, "%04X:%02X:%02X.0", info->domain & 0xffff, info->bus & 0xff, info->device & 0xff);
    info->device_id = (unsigned)card->device_id;
    info->subsystem_id = (unsigned)card->subsystem_id;
    return SUCCESS;
}

struct memory {
    unsigned long long total, free, used;
};

int nvmlDeviceGetMemoryInfo(device card, struct memory *memory)
{
    long reserved;

    ENTER_CARD(card);
    if (card->total_mib == ABSENT)
        return NOT_SUPPORTED;
    /* The first version knows no reserved memory and counts it as used. */
    reserved = card->reserved_mib == ABSENT ? 0 : card->reserved_mib;
    memory->total = (unsigned long long)card->total_mib * MIB;
    memory->used = (unsigned long long)(card->used_mib + reserved) * MIB;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

struct process_info_v1 {
    unsigned pid;
    unsigned long long bytes;
};

struct process_info {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
};

static int give_processes(device card, char type, unsigned *count, void *to, size_t size)
{
    unsigned room = *count, found = 0;
    struct process_info info;
    int i;

    for (i = 0; i < card->process_count; i++) {
        if (card->processes[i].type != type)
            continue;
        if (to && found < room) {
            memset(&info, 0, sizeof info);
            info.pid = card->processes[i].pid;
            info.bytes = card->processes[i].bytes;
            info.gpu_instance = info.compute_instance = ~0U;
            /* The first version of the structure is the beginning of the later ones. */
            memcpy((char *)to + found * size, &info, size);
        }
        found++;
    }
    *count = found;
    return found > room || (found && !to) ? INSUFFICIENT_SIZE : SUCCESS;
}

#define PROCESSES(name, type, info) \
    int name(device card, unsigned *count, struct info *infos) \
    { \
        ENTER_CARD(card); \
        return give_processes(card, type, count, infos, sizeof *infos); \
    }

PROCESSES(nvmlDeviceGetComputeRunningProcesses, 'C', process_info_v1)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, 'G', process_info_v1)

#if BRANCH >= 450
int nvmlDeviceGetArchitecture(device card, unsigned *architecture) { ENTER_CARD(card); return give_number(card->architecture, architecture); }

int nvmlDeviceGetMigMode(device card, unsigned *current, unsigned *pending)
{
    ENTER_CARD(card);
    return give_number(card->mig, current) ? NOT_SUPPORTED : give_number(card->mig, pending);
}

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, 'C', process_info)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, 'G', process_info)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, 'M', process_info)
#endif

#if BRANCH >= 510
struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

int nvmlDeviceGetMemoryInfo_v2(device card, struct memory_v2 *memory)
{
    long reserved;

    ENTER_CARD(card);
    if (memory->version != (sizeof *memory | 2U << 24))
        return ARGUMENT_VERSION;
    if (card->total_mib == ABSENT)
        return NOT_SUPPORTED;
    reserved = card->reserved_mib == ABSENT ? 0 : card->reserved_mib;
    memory->total = (unsigned long long)card->total_mib * MIB;
    memory->reserved = (unsigned long long)reserved * MIB;
    memory->used = (unsigned long long)card->used_mib * MIB;
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, 'C', process_info)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, 'G', process_info)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, 'M', process_info)
#endif
