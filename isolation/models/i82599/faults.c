/* SPDX-License-Identifier: MIT */
/*
 * What a driver does wrong is counted and reported by name, where hardware would go on somehow.  And what tests make
 * go wrong: properties that a monitor can set at any moment.
 */

#include "model.h"

#include "qapi/error.h"
#include "qapi/visitor.h"

enum { REPORTS = 50 };          /* of each kind; the rest is only counted */

static const char *const names[MISTAKES] = {
	[REGISTER_UNKNOWN] = "register-unknown",
	[REGISTER_READ_ONLY] = "register-read-only",
	[REGISTER_IN_RESET] = "register-in-reset",
	[RING_BASE] = "ring-base",
	[RING_LENGTH] = "ring-length",
	[RING_MOVED] = "ring-moved-while-on",
	[RING_TAIL] = "ring-tail-past-end",
	[RING_TAIL_WHILE_OFF] = "ring-tail-while-off",
	[RECEIVE_BUFFER_SIZE] = "receive-buffer-size",
	[RECEIVE_DESCRIPTOR_TYPE] = "receive-descriptor-type",
	[RECEIVE_CRC] = "receive-crc-strip-differs",
	[TRANSMIT_BEFORE_TE] = "transmit-queue-before-te",
	[TRANSMIT_DESCRIPTOR_TYPE] = "transmit-descriptor-type",
	[TRANSMIT_CONTEXT] = "transmit-without-context",
	[TRANSMIT_OFFLOAD] = "transmit-offload",
	[TRANSMIT_LENGTH] = "transmit-length",
	[TRANSMIT_SHORT] = "transmit-short",
	[TRANSMIT_LONG] = "transmit-long",
	[INTERRUPT_VECTOR] = "interrupt-vector",
	[SEMAPHORE] = "semaphore",
	[NOT_MODELLED] = "not-modelled",
	[DMA_REFUSED] = "dma-refused",
};

void i82599_mistake(I82599State *s, enum mistake mistake, const char *format, ...)
{
	s->mistakes++;
	if (s->mistake[mistake]++ >= REPORTS) {
		return;
	}
	va_list arguments;
	va_start(arguments, format);
	g_autofree char *text = g_strdup_vprintf(format, arguments);
	va_end(arguments);
	if (!s->report_file && s->report) {
		s->report_file = fopen(s->report, "a");
	}
	if (s->report_file) {
		fprintf(s->report_file, "%s: %s\n", names[mistake], text);
		fflush(s->report_file);
	}
}

static bool fails(I82599State *s)
{
	if (s->fail_dma) {
		s->fail_dma--;
		return true;
	}
	return false;
}

static bool conclude(I82599State *s, bool injected, MemTxResult result, const char *what, uint64_t address, size_t size)
{
	if (!injected && result == MEMTX_OK) {
		return true;
	}
	if (!injected) {
		i82599_mistake(s, DMA_REFUSED, "%s of %zu bytes at %#" PRIx64, what, size, address);
	}
	i82599_interrupt(s, CAUSE_PCI);
	return false;
}

bool i82599_dma_read(I82599State *s, uint64_t address, void *to, size_t size)
{
	bool injected = fails(s);
	MemTxResult result = injected ? MEMTX_ERROR : pci_dma_read(PCI_DEVICE(s), address, to, size);
	return conclude(s, injected, result, "read", address, size);
}

bool i82599_dma_write(I82599State *s, uint64_t address, const void *from, size_t size)
{
	bool injected = fails(s);
	MemTxResult result = injected ? MEMTX_ERROR : pci_dma_write(PCI_DEVICE(s), address, from, size);
	return conclude(s, injected, result, "write", address, size);
}

/* --- the switches ------------------------------------------------------------------ */

static bool get_link(Object *object, Error **error)
{
	return I82599(object)->link_wanted;
}

static void set_link(Object *object, bool up, Error **error)
{
	I82599(object)->link_wanted = up;
	if (DEVICE(object)->realized) {
		i82599_link_changed(I82599(object));
	}
}

static bool get_reset(Object *object, Error **error)
{
	return false;
}

static void set_reset(Object *object, bool reset, Error **error)
{
	if (reset && DEVICE(object)->realized) {
		device_cold_reset(DEVICE(object));
	}
}

static void get_fail_dma(Object *object, Visitor *visitor, const char *name, void *data, Error **error)
{
	visit_type_uint32(visitor, name, &I82599(object)->fail_dma, error);
}

static void set_fail_dma(Object *object, Visitor *visitor, const char *name, void *data, Error **error)
{
	visit_type_uint32(visitor, name, &I82599(object)->fail_dma, error);
}

static uint64_t *hung(Object *object, const char *name)
{
	return strstr(name, "receive") ? &I82599(object)->hung_receive : &I82599(object)->hung_transmit;
}

static void get_hung(Object *object, Visitor *visitor, const char *name, void *data, Error **error)
{
	visit_type_uint64(visitor, name, hung(object, name), error);
}

static void set_hung(Object *object, Visitor *visitor, const char *name, void *data, Error **error)
{
	visit_type_uint64(visitor, name, hung(object, name), error);
	if (DEVICE(object)->realized) {
		i82599_receive_drain(I82599(object));
		i82599_transmit_soon(I82599(object));
	}
}

static void get_mistakes(Object *object, Visitor *visitor, const char *name, void *data, Error **error)
{
	visit_type_uint64(visitor, name, &I82599(object)->mistakes, error);
}

/* To count anew. */
static void set_mistakes(Object *object, Visitor *visitor, const char *name, void *data, Error **error)
{
	uint64_t value;
	if (!visit_type_uint64(visitor, name, &value, error)) {
		return;
	}
	if (value) {
		error_setg(error, "only 0 can be set");
		return;
	}
	I82599(object)->mistakes = 0;
	memset(I82599(object)->mistake, 0, sizeof(I82599(object)->mistake));
}

static char *get_mistake_counts(Object *object, Error **error)
{
	I82599State *s = I82599(object);
	GString *text = g_string_new(NULL);
	for (int i = 0; i < MISTAKES; i++) {
		if (s->mistake[i]) {
			g_string_append_printf(text, "%s%s=%" PRIu64, text->len ? " " : "", names[i], s->mistake[i]);
		}
	}
	return g_string_free(text, FALSE);
}

static void describe(ObjectClass *class, const char *name, const char *text)
{
	object_class_property_set_description(class, name, text);
}

void i82599_add_switches(ObjectClass *class)
{
	object_class_property_add_bool(class, "link", get_link, set_link);
	describe(class, "link", "off: the cable is pulled");
	object_class_property_add_bool(class, "reset-now", get_reset, set_reset);
	describe(class, "reset-now", "on: a PCIe reset, as if its slot were reset");
	object_class_property_add(class, "fail-dma", "uint32", get_fail_dma, set_fail_dma, NULL, NULL);
	describe(class, "fail-dma", "how many of the next accesses to memory fail");
	object_class_property_add(class, "hung-receive", "uint64", get_hung, set_hung, NULL, NULL);
	describe(class, "hung-receive", "receive queues that do nothing, as bits, until the device is reset");
	object_class_property_add(class, "hung-transmit", "uint64", get_hung, set_hung, NULL, NULL);
	describe(class, "hung-transmit", "transmit queues that do nothing, likewise");
	object_class_property_add(class, "mistakes", "uint64", get_mistakes, set_mistakes, NULL, NULL);
	describe(class, "mistakes", "how much the driver has done wrong; 0 can be set");
	object_class_property_add_str(class, "mistake-counts", get_mistake_counts, NULL);
	describe(class, "mistake-counts", "the same by name");
}
