// SPDX-License-Identifier: MIT
//
// For tests of the NVMe driver as a domain, one program each.
#ifndef ORBIT_TESTS_DRIVERS_DOMAIN_TEST_H
#define ORBIT_TESTS_DRIVERS_DOMAIN_TEST_H

#include "domain.h"
#include "machine.h"
#include "prepared.h"
#include "queue.h"

namespace {

using namespace machine;
using orbit::Domain;
using orbit::rref;
using orbit::Supervisor;
using orbit::Zone;
using orbit::block::Finished;
using orbit::block::Op;
using orbit::block::Queue;
using orbit::block::Request;
namespace block = orbit::block;
namespace nvme = orbit::nvme;

const Zone data{0}, queues{1};

} // namespace

#endif // ORBIT_TESTS_DRIVERS_DOMAIN_TEST_H
