-- The action of haproxy.cfg: it asks the gate about a request, and leaves the
-- answer in variables. If the gate does not answer, there is no variable, and
-- haproxy.cfg answers 503.

local gate = "http://127.0.0.1:4180/"

-- What the gate needs of a request, and no more.
local passed_on = { "cookie", "authorization", "origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest" }

-- Where the headers of the answer go.
local kept = {
	["x-session-subject"] = "txn.gate_subject",
	["x-session-id"] = "txn.gate_id",
	["x-session-audience"] = "txn.gate_audience",
	["x-session-state"] = "txn.gate_state",
	["www-authenticate"] = "txn.gate_challenge",
	["set-cookie"] = "txn.gate_cookie",
}

core.register_action("session_gate", { "http-req" }, function(txn)
	local sent = txn.http:req_get_headers()
	local headers = {
		["x-forwarded-method"] = { txn.sf:method() },
		["x-forwarded-host"] = { txn.sf:req_hdr("host") },
	}
	for _, name in ipairs(passed_on) do
		local values = sent[name]
		if values then
			headers[name] = {}
			for i = 0, #values do
				table.insert(headers[name], values[i])
			end
		end
	end
	local answer = core.httpclient():get({ url = gate, headers = headers, timeout = 20000 })
	if not answer or not answer.headers then
		return
	end
	for name, variable in pairs(kept) do
		local values = answer.headers[name]
		if values then
			txn:set_var(variable, values[0])
		end
	end
	txn:set_var("txn.gate_status", tostring(answer.status))
end)
