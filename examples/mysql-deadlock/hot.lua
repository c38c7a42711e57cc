-- SPDX-License-Identifier: MIT
--
-- A load for sysbench: transactions that update hot rows, in any order. bench.py makes the table.

sysbench.cmdline.options = {
	rows = {"Among how many rows", 20},
	updates = {"How many of them a transaction updates", 4},
}

function thread_init()
	connection = sysbench.sql.driver():connect()
end

function thread_done()
	connection:disconnect()
end

function event()
	local seen = {}

	connection:query("BEGIN")
	for _ = 1, sysbench.opt.updates do
		local row

		repeat
			row = sysbench.rand.uniform(0, sysbench.opt.rows - 1)
		until not seen[row]
		seen[row] = true
		connection:query("UPDATE test.t SET v = v + 1 WHERE id = " .. row)
	end
	connection:query("COMMIT")
end

-- A deadlock, or the end of a lock wait: the next transaction begins.
function sysbench.hooks.sql_error_ignorable(err)
	if err.sql_errno == 1205 then
		connection:query("ROLLBACK")
	end
	return err.sql_errno == 1213 or err.sql_errno == 1205
end
