// SPDX-License-Identifier: MIT
//
// A type whose statistics function has bugs: the setting fragile.fault says which.
#include "postgres.h"

#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "access/relation.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type.h"
#include "commands/vacuum.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_MODULE_MAGIC;

// The faults up to "signal" end a server; those from "error" on are what a sound function may do, too;
// those from "lie_" on are results that no planner must ever see.
static const struct config_enum_entry faults[] = {
	{"none", 0}, {"segfault", 1}, {"abort", 2}, {"loop", 3}, {"memory", 4}, {"heap", 5}, {"wild", 6},
	{"stack", 7}, {"exit", 8}, {"signal", 9},
	{"error", 20}, {"relation", 21}, {"catalog", 22}, {"notice", 23}, {"oom", 24},
	{"whole", 25}, {"slice", 26}, {"own_slot", 27},
	{"lie_counts", 40}, {"lie_numbers", 41}, {"lie_type", 42}, {"lie_operator", 43}, {"lie_value", 44},
	{"lie_length", 45}, {"lie_kind", 46}, {"lie_width", 47}, {"lie_nan", 48}, {"lie_collation", 49},
	{NULL, 0},
};

static int fault = 0;
static int memory_mb = 1024;
static volatile int sink;

// What std_typanalyze() has chosen. In the statistics, not in a variable here: an orbit has
// variables as they were when it was made.
typedef struct Usual {
	AnalyzeAttrComputeStatsFunc compute;
	void *data;
} Usual;

static void eat_memory(void)
{
	// Not more than told: this may run in a server without any limit.
	for (int i = 0; i < memory_mb; i++)
		memset(malloc(1 << 20), i, 1 << 20);
}

static void break_heap(void)
{
	char *chunks[64];

	for (int i = 0; i < 64; i++)
		chunks[i] = malloc(1000);
	for (int i = 0; i < 64; i++)
		memset(chunks[i] - 64, 0x41, 1200);
	for (int i = 0; i < 64; i++)
		free(chunks[i]);
	memset((char *)CurrentMemoryContext, 0x41, 200);
	palloc(100);
}

// Random writes to all memory that can be written, which in a server includes its shared buffers.
static void write_wildly(void)
{
	struct { char *start; size_t size; } areas[256];
	char line[512], rights[5];
	unsigned long start, end;
	FILE *maps = fopen("/proc/self/maps", "r");
	int count = 0;
	unsigned long long random = 88172645463325252ULL;

	while (count < 256 && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3 && rights[1] == 'w') {
			areas[count].start = (char *)start;
			areas[count++].size = end - start;
		}
	}
	for (int i = 0; i < 2000000; i++) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		int area = (int)(random % (unsigned)count);

		*(unsigned long long *)(areas[area].start + (random >> 8) % (areas[area].size - 8)) = random;
	}
}

static int (*volatile deeper)(int);

static int grow_stack(int depth)
{
	volatile char room[10000];

	room[depth % 10000] = (char)depth;
	return deeper(depth + 1) + room[0];
}

static void lie(VacAttrStats *stats)
{
	int slot = 0;

	while (slot < STATISTIC_NUM_SLOTS - 1 && stats->stakind[slot] != STATISTIC_KIND_MCV)
		slot++;
	switch (fault) {
	case 40:
		stats->numnumbers[slot]--;
		break;
	case 41:
		stats->stanumbers[slot][0] = -3;
		break;
	case 42:
		stats->statypid[slot] = INT8ARRAYOID;
		break;
	case 43:
		stats->staop[slot] = 96; // for integers
		break;
	case 44:
		stats->stavalues[slot][0] = PointerGetDatum(cstring_to_text("nobody has written this"));
		break;
	case 45:
		SET_VARSIZE(DatumGetPointer(stats->stavalues[slot][0]), 1 << 20);
		break;
	case 46:
		stats->stakind[slot] = STATISTIC_KIND_BOUNDS_HISTOGRAM;
		break;
	case 47:
		stats->stawidth = -1;
		break;
	case 48:
		stats->stadistinct = (float4)NAN;
		break;
	case 49:
		stats->stacoll[slot] = 12345678;
		break;
	}
}

// Look at all values, or at the beginning of each, as a type with an inner structure does.
static void look(VacAttrStats *stats, AnalyzeAttrFetchFunc fetch, int rows)
{
	for (int i = 0; i < rows; i++) {
		bool null;
		Datum value = fetch(stats, i, &null);
		struct varlena *plain;

		if (null)
			continue;
		plain = fault == 25 ? PG_DETOAST_DATUM_COPY(value) : PG_DETOAST_DATUM_SLICE(value, 0, 64);
		sink += VARDATA_ANY(plain)[VARSIZE_ANY_EXHDR(plain) - 1];
		pfree(plain);
	}
}

// A slot that only this extension knows, with values of some other type.
static void add_slot(VacAttrStats *stats)
{
	Datum *values = MemoryContextAlloc(stats->anl_context, sizeof(Datum));

	values[0] = Int32GetDatum(4711);
	stats->stakind[4] = 4711;
	stats->statypid[4] = INT4OID;
	stats->statyplen[4] = sizeof(int32);
	stats->statypbyval[4] = true;
	stats->statypalign[4] = TYPALIGN_INT;
	stats->stavalues[4] = values;
	stats->numvalues[4] = 1;
}

static void compute(VacAttrStats *stats, AnalyzeAttrFetchFunc fetch, int rows, double total)
{
	const Usual *usual = stats->extra_data;

	switch (fault) {
	case 1:
		*(volatile int *)NULL = 1;
		break;
	case 2:
		abort();
	case 3:
		for (;;)
			sink++;
	case 4:
		eat_memory();
		break;
	case 5:
		break_heap();
		break;
	case 6:
		write_wildly();
		break;
	case 7:
		deeper = grow_stack;
		deeper(0);
		break;
	case 8:
		exit(3);
	case 9:
		kill(getpid(), SIGKILL);
		break;
	case 20:
		ereport(ERROR, errcode(ERRCODE_DATA_EXCEPTION), errmsg("this column is too fragile"),
			errhint("Be careful."));
	case 21:
		relation_close(relation_open(stats->attr->attrelid, AccessShareLock), AccessShareLock);
		break;
	case 22:
		ReleaseSysCache(SearchSysCache1(RELOID, ObjectIdGetDatum(stats->attr->attrelid)));
		break;
	case 23:
		ereport(LOG, errmsg("fragile: computing"));
		break;
	case 24:
		ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"));
	case 25:
	case 26:
		look(stats, fetch, rows);
		break;
	}
	stats->extra_data = usual->data;
	usual->compute(stats, fetch, rows, total);
	if (fault == 27 && stats->stats_valid)
		add_slot(stats);
	if (fault >= 40 && stats->stats_valid)
		lie(stats);
}

// From here on ANALYZE takes the same sample each time that it is run on the same table.
PG_FUNCTION_INFO_V1(fragile_seed);
Datum fragile_seed(PG_FUNCTION_ARGS)
{
	pg_prng_seed(&pg_global_prng_state, PG_GETARG_INT64(0));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(fragile_analyze);
Datum fragile_analyze(PG_FUNCTION_ARGS)
{
	VacAttrStats *stats = (VacAttrStats *)PG_GETARG_POINTER(0);

	Usual *usual;

	if (!std_typanalyze(stats))
		PG_RETURN_BOOL(false);
	usual = palloc(sizeof(*usual));
	usual->compute = stats->compute_stats;
	usual->data = stats->extra_data;
	stats->extra_data = usual;
	stats->compute_stats = compute;
	PG_RETURN_BOOL(true);
}

void _PG_init(void);
void _PG_init(void)
{
	DefineCustomEnumVariable("fragile.fault", "What goes wrong in statistics.", NULL, &fault, 0, faults,
				 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("fragile.memory_mb", "How much memory the fault takes.", NULL, &memory_mb,
				1024, 1, 1 << 20, PGC_SUSET, GUC_UNIT_MB, NULL, NULL, NULL);
}
