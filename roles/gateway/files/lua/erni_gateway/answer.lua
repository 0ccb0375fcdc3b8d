-- Copyright (c) 2026, the erni_ki.inference team
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- Answers that the gateway gives itself, in the format of the API that was asked.
local cjson = require("cjson.safe")
local metrics = require("erni_gateway.metrics")

local M = {}

local TYPES = {[401] = "authentication_error", [404] = "not_found_error", [429] = "rate_limit_error"}

function M.error_text(api, status, reason, message)
    if api == "ollama" then
        return cjson.encode({error = message})
    end
    local kind = TYPES[status] or status >= 500 and "server_error" or "invalid_request_error"
    return cjson.encode({error = {message = message, type = kind, code = reason}})
end

local function send(status, text)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Content-Length"] = #text
    ngx.print(text)
    -- What was said is the answer: no error page for it.
    return ngx.exit(ngx.HTTP_OK)
end

function M.json(status, value)
    return send(status, cjson.encode(value) .. "\n")
end

function M.refuse(state, status, reason, message, retry_after)
    metrics.refused(reason)
    state.refused = reason
    if retry_after then
        ngx.header["Retry-After"] = math.max(1, math.ceil(retry_after))
    end
    if status == 401 then
        ngx.header["WWW-Authenticate"] = "Bearer"
    end
    return send(status, M.error_text(state.api, status, reason, message) .. "\n")
end

return M
