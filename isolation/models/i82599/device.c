/* SPDX-License-Identifier: MIT */
/* What QEMU wants of a PCI Express device and of a network card. */

#include "model.h"

#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"

enum {
	DEVICE_SFP = 0x10FB,
	DEVICE_BACKPLANE = 0x10F7,
	REVISION = 1,
	BAR_MEMORY = 0, BAR_IO = 2, BAR_MSIX = 4,
	IO_SIZE = 32, IOADDR = 0, IODATA = 4,
	MSIX_SIZE = 16 * KiB, MSIX_PBA = 0x2000,
	AT_MSI = 0x50, AT_MSIX = 0x70, AT_EXPRESS = 0xA0, AT_POWER = 0x40,
	AT_AER = 0x100, AT_SERIAL = 0x140,
};

static const MemoryRegionOps memory_ops = {
	.read = i82599_read,
	.write = i82599_write,
	.endianness = DEVICE_LITTLE_ENDIAN,
	.valid = {.min_access_size = 4, .max_access_size = 8},
	.impl = {.min_access_size = 4, .max_access_size = 4},
};

/* For old drivers: one register says which, the other is it. */
static uint64_t read_io(void *device, hwaddr offset, unsigned size)
{
	I82599State *s = device;
	return offset == IOADDR ? s->io_address : offset == IODATA ? i82599_read(s, s->io_address, 4) : 0;
}

static void write_io(void *device, hwaddr offset, uint64_t value, unsigned size)
{
	I82599State *s = device;
	if (offset == IOADDR) {
		s->io_address = value & (MEMORY_SIZE - 1);
	} else if (offset == IODATA) {
		i82599_write(s, s->io_address, value, 4);
	}
}

static const MemoryRegionOps io_ops = {
	.read = read_io,
	.write = write_io,
	.endianness = DEVICE_LITTLE_ENDIAN,
	.valid = {.min_access_size = 4, .max_access_size = 4},
	.impl = {.min_access_size = 4, .max_access_size = 4},
};

/* --- as a network card --------------------------------------------------------------- */

static ssize_t receive(NetClientState *client, const uint8_t *data, size_t size)
{
	uint8_t padded[MIN_FRAME] = {0};
	/* Who is not a network card may leave the padding out. */
	if (size < MIN_FRAME && size >= 14 && client->peer && client->peer->info->type != NET_CLIENT_DRIVER_NIC) {
		memcpy(padded, data, size);
		i82599_receive(qemu_get_nic_opaque(client), padded, MIN_FRAME, true);
	} else {
		i82599_receive(qemu_get_nic_opaque(client), data, size, true);
	}
	return size;
}

static void link_status_changed(NetClientState *client)
{
	i82599_link_changed(qemu_get_nic_opaque(client));
}

static NetClientInfo net_info = {
	.type = NET_CLIENT_DRIVER_NIC,
	.size = sizeof(NICState),
	.receive = receive,
	.link_status_changed = link_status_changed,
};

/* --- as a device ------------------------------------------------------------------------ */

static void add_power_management(PCIDevice *pci)
{
	int at = pci_add_capability(pci, PCI_CAP_ID_PM, AT_POWER, PCI_PM_SIZEOF, &error_abort);
	pci_set_word(pci->config + at + PCI_PM_PMC, PCI_PM_CAP_VER_1_1);
	pci_set_word(pci->wmask + at + PCI_PM_CTRL, PCI_PM_CTRL_STATE_MASK);
}

static void realize(PCIDevice *pci, Error **error)
{
	I82599State *s = I82599(pci);
	memory_region_init_io(&s->memory, OBJECT(s), &memory_ops, s, "i82599-memory", MEMORY_SIZE);
	memory_region_init_io(&s->io, OBJECT(s), &io_ops, s, "i82599-io", IO_SIZE);
	memory_region_init(&s->msix, OBJECT(s), "i82599-msix", MSIX_SIZE);
	pci_register_bar(pci, BAR_MEMORY, PCI_BASE_ADDRESS_MEM_TYPE_64, &s->memory);
	pci_register_bar(pci, BAR_IO, PCI_BASE_ADDRESS_SPACE_IO, &s->io);
	pci_register_bar(pci, BAR_MSIX, PCI_BASE_ADDRESS_MEM_TYPE_64, &s->msix);
	if (s->backplane) {
		pci_config_set_device_id(pci->config, DEVICE_BACKPLANE);
	}
	pci_config_set_interrupt_pin(pci->config, 1);
	add_power_management(pci);
	if (pcie_endpoint_cap_init(pci, AT_EXPRESS) < 0
			|| msi_init(pci, AT_MSI, 1, true, true, error) < 0
			|| pcie_aer_init(pci, PCI_ERR_VER, AT_AER, PCI_ERR_SIZEOF, error) < 0
			|| msix_init(pci, VECTORS, &s->msix, BAR_MSIX, 0, &s->msix, BAR_MSIX, MSIX_PBA, AT_MSIX, error) < 0) {
		return;
	}
	for (int i = 0; i < VECTORS; i++) {
		msix_vector_use(pci, i);
	}
	pcie_cap_flr_init(pci);
	qemu_macaddr_default_if_unset(&s->conf.macaddr);
	const uint8_t *mac = s->conf.macaddr.a;
	pcie_dev_ser_num_init(pci, AT_SERIAL, ((uint64_t)ldl_be_p(mac) << 32 | 0xFFFFull << 24 | (ldl_be_p(mac + 2) & 0xFFFFFF)));
	s->nic = qemu_new_nic(&net_info, &s->conf, TYPE_I82599, DEVICE(s)->id, &DEVICE(s)->mem_reentrancy_guard, s);
	qemu_format_nic_info_str(qemu_get_queue(s->nic), s->conf.macaddr.a);
	s->link_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, i82599_link_timer, s);
	s->interrupt_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, i82599_interrupt_timer, s);
	s->coalesce_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, i82599_coalesce_timer, s);
	s->pause_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, i82599_transmit, s);
	s->transmit_bh = qemu_bh_new_guarded(i82599_transmit, s, &DEVICE(s)->mem_reentrancy_guard);
	i82599_make_eeprom(s);
	i82599_reset(s);
}

static void unrealize(PCIDevice *pci)
{
	I82599State *s = I82599(pci);
	i82599_reset_receive(s);
	i82599_reset_transmit(s);
	g_hash_table_destroy(s->filters);
	qemu_bh_delete(s->transmit_bh);
	timer_free(s->link_timer);
	timer_free(s->interrupt_timer);
	timer_free(s->coalesce_timer);
	timer_free(s->pause_timer);
	qemu_del_nic(s->nic);
	for (int i = 0; i < VECTORS; i++) {
		msix_vector_unuse(pci, i);
	}
	msix_uninit(pci, &s->msix, &s->msix);
	msi_uninit(pci);
	pcie_aer_exit(pci);
	pcie_cap_exit(pci);
	if (s->report_file) {
		fclose(s->report_file);
	}
}

/* Of the bus or the function: also who holds which semaphore is forgotten. */
static void reset(DeviceState *device)
{
	I82599State *s = I82599(device);
	*reg_at(s, SW_FW_SYNC) = 0;
	i82599_reset(s);
	s->reset_until = 0;
}

static void write_config(PCIDevice *pci, uint32_t offset, uint32_t value, int size)
{
	I82599State *s = I82599(pci);
	pci_default_write_config(pci, offset, value, size);
	pcie_cap_flr_write_config(pci, offset, value, size);
	pcie_aer_write_config(pci, offset, value, size);
	if (i82599_may_use_memory(s)) {
		i82599_receive_drain(s);
		i82599_transmit_soon(s);
	}
}

static void init(Object *object)
{
	I82599State *s = I82599(object);
	s->link_wanted = true;
	QTAILQ_INIT(&s->packets);
}

static Property properties[] = {
	DEFINE_NIC_PROPERTIES(I82599State, conf),
	/* Handle a new tail in the very write, for runs that count instructions; else soon. */
	DEFINE_PROP_BOOL("immediate", I82599State, immediate, false),
	/* No module, but a backplane (KX4). */
	DEFINE_PROP_BOOL("backplane", I82599State, backplane, false),
	/* Where to report mistakes: a file, to which lines are added. */
	DEFINE_PROP_STRING("report", I82599State, report),
	DEFINE_PROP_END_OF_LIST(),
};

static const VMStateDescription not_migrated = {
	.name = TYPE_I82599,
	.unmigratable = 1,
};

/* Do the headers that this was compiled with fit the QEMU that it is loaded into? */
static void check_layout(void)
{
	if (object_type_get_instance_size(TYPE_PCI_DEVICE) != sizeof(PCIDevice)
			|| object_type_get_instance_size(TYPE_DEVICE) != sizeof(DeviceState)
			|| object_type_get_instance_size(TYPE_MEMORY_REGION) != sizeof(MemoryRegion)) {
		error_report(TYPE_I82599 ": compiled for another QEMU than this one");
		exit(1);
	}
}

static void class_init(ObjectClass *class, void *data)
{
	check_layout();
	DeviceClass *device = DEVICE_CLASS(class);
	PCIDeviceClass *pci = PCI_DEVICE_CLASS(class);
	pci->realize = realize;
	pci->exit = unrealize;
	pci->config_write = write_config;
	pci->vendor_id = PCI_VENDOR_ID_INTEL;
	pci->device_id = DEVICE_SFP;
	pci->revision = REVISION;
	pci->class_id = PCI_CLASS_NETWORK_ETHERNET;
	pci->subsystem_vendor_id = PCI_VENDOR_ID_INTEL;
	pci->subsystem_id = 3;
	device->desc = "Intel 82599 10 Gigabit Ethernet (a model)";
	device->reset = reset;
	device->vmsd = &not_migrated;
	device_class_set_props(device, properties);
	set_bit(DEVICE_CATEGORY_NETWORK, device->categories);
	i82599_add_switches(class);
}

static const TypeInfo type = {
	.name = TYPE_I82599,
	.parent = TYPE_PCI_DEVICE,
	.instance_size = sizeof(I82599State),
	.instance_init = init,
	.class_init = class_init,
	.interfaces = (InterfaceInfo[]) {{INTERFACE_PCIE_DEVICE}, {}},
};

static void register_type(void)
{
	type_register_static(&type);
}

type_init(register_type)
