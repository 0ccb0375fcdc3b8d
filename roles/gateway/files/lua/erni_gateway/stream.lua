-- Copyright (c) 2026, the erni_ki.inference team
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- The answer on its way to the client: when its first byte came, how many tokens it had, and an error in its own format where it breaks off.
local answer = require("erni_gateway.answer")
local engines = require("erni_gateway.engines")
local gate = require("erni_gateway.gate")
local metrics = require("erni_gateway.metrics")

local M = {}

local TAIL = 2048  -- bytes at the end of an answer in which the engine says how many tokens it had
local HELD = 1048576  -- bytes of an unfinished event that are held back at most
local END_OF_EVENT = {sse = "^.*\n\r?\n()", ndjson = "^.*\n()"}

function M.header()
    local state = ngx.ctx.state
    if not state then
        return
    end
    local kind = ngx.header["Content-Type"] or ""
    state.format = string.find(kind, "text/event-stream", 1, true) and "sse" or string.find(kind, "application/x-ndjson", 1, true) and "ndjson" or "whole"
    local status = ngx.status
    if status == 500 or status == 503 then
        engines.failed(state.engine, "answer", state.engine.name .. " answered " .. status)
    end
end

local function broken(state)
    state.broken = true
    metrics.broken(state.engine.name)
    ngx.log(ngx.ERR, "engine ", state.engine.name, " broke off in the middle of an answer")
    engines.failed(state.engine, "answer", state.engine.name .. " broke off in the middle of an answer")
    local message = "The engine " .. state.engine.name .. " broke off in the middle of its answer."
    if state.format == "sse" then
        return "data: " .. answer.error_text("openai", 502, "engine_failed", message) .. "\n\n"
    end
    return answer.error_text(state.api, 502, "engine_failed", message) .. "\n"
end

-- Only whole events go to the client: one that stays unfinished would be in the way of the error that takes its place.
local function whole_events(state, chunk, last)
    local text = (state.rest or "") .. chunk
    local behind = not last and #text < HELD and string.match(text, END_OF_EVENT[state.format])
    if last or #text >= HELD then
        behind = #text + 1
    end
    state.rest = string.sub(text, behind or 1)
    return string.sub(text, 1, (behind or 1) - 1)
end

function M.body()
    local state = ngx.ctx.state
    if not state or state.broken then
        return
    end
    local chunk = ngx.arg[1]
    if chunk ~= "" then
        if not state.ttft then
            ngx.update_time()
            state.ttft = ngx.now() - ngx.req.start_time()
        end
        -- Once a second is enough of what all workers share.
        if state.heard ~= ngx.time() and ngx.status < 500 then
            state.heard = ngx.time()
            engines.heard(state.engine)
        end
        state.tail = string.sub((state.tail or "") .. chunk, -TAIL)
        if state.format ~= "whole" then
            ngx.arg[1] = whole_events(state, chunk, ngx.arg[2])
        end
        if state.format == "sse" then
            local place = 0
            repeat
                place = string.find(chunk, "data: {", place + 1, true)
                state.events = (state.events or 0) + (place and 1 or 0)
            until not place
        end
    elseif not ngx.arg[2] and state.format ~= "whole" and not string.find(ngx.var.upstream_response_time or "-", "-%s*$") then
        -- nginx has given the engine up, and flushes what there is: the last chance to say so.
        ngx.arg[1] = broken(state)
        ngx.arg[2] = true
    elseif ngx.arg[2] and state.rest and state.rest ~= "" then
        ngx.arg[1] = whole_events(state, "", true)
    end
end

local function tokens(state)
    local tail = state.tail or ""
    local said
    for number in string.gmatch(tail, '"completion_tokens"%s*:%s*(%d+)') do
        said = number
    end
    said = said or string.match(tail, '"eval_count"%s*:%s*(%d+)') or string.match(tail, '"output_tokens"%s*:%s*(%d+)')
    return tonumber(said) or state.events or 0
end

function M.log()
    local state = gate.state()
    if not state then
        return
    end
    gate.let_go(state)
    gate.forget()
    local var = ngx.var
    var.gateway_key = state.key or ""
    var.gateway_model = state.model or ""
    var.gateway_tries = state.tries
    var.gateway_outcome = state.refused or state.broken and "broken" or ngx.status == 499 and "client_left" or "answered"
    local engine = state.engine
    if not engine then
        return
    end
    var.gateway_engine = engine.name
    metrics.request(engine.name, ngx.status)
    if state.ttft and not state.refused then
        var.gateway_ttft = string.format("%.3f", state.ttft)
        if not state.light and ngx.status == 200 then
            metrics.ttft(engine.name, state.ttft)
            local count = tokens(state)
            var.gateway_tokens = count
            metrics.tokens(engine.name, count)
        end
    end
end

return M
