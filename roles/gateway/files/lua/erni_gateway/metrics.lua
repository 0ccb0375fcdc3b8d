-- Copyright (c) 2026, the erni_ki.inference team
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- Counters for Prometheus. They begin at 0, so that the first failure is an increase.
local config = require("erni_gateway.config")
local engines = require("erni_gateway.engines")

local M = {}

local BUCKETS = {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}
M.REASONS = {
    "unauthorized", "rate_limit", "queue_full", "queue_timeout", "no_engine", "bad_request", "too_large", "too_slow", "unknown_model", "not_offered",
    "engine_failed",
}
local PREFIX = "erni_ki_gateway_"
local FAMILIES = {
    {"requests_total", "counter", "Requests that an engine answered, or failed to, by the status the client saw."},
    {"refused_total", "counter", "Requests that got their answer from the gateway itself, by the reason."},
    {"retries_total", "counter", "Attempts after one that failed before its first byte."},
    {"broken_streams_total", "counter", "Answers whose engine failed after the first byte."},
    {"tokens_total", "counter", "Tokens that engines generated, as they say; where they do not, events of the stream."},
    {"ttft_seconds", "histogram", "Seconds from a request to the first byte of its answer."},
    {"engine_up", "gauge", "Whether the engine gets requests: 1, or 0 when it was taken out."},
    {"engine_drained", "gauge", "Whether the engine gets no new requests because somebody asked for it."},
    {"in_flight", "gauge", "Requests that the engine works on."},
    {"queued", "gauge", "Requests that wait for the engine."},
}

local function series(name, labels)
    return PREFIX .. name .. (labels and "{" .. labels .. "}" or "")
end

local function add(name, labels, value)
    ngx.shared.gateway_metrics:incr(series(name, labels), value, 0)
end

local function of(engine)
    return 'engine="' .. engine .. '"'
end

function M.start()
    for _, reason in ipairs(M.REASONS) do
        add("refused_total", 'reason="' .. reason .. '"', 0)
    end
    add("retries_total", nil, 0)
    for _, engine in ipairs(config.engines) do
        local label = of(engine.name)
        for _, status in ipairs({"200", "500", "502", "503", "504"}) do
            add("requests_total", label .. ',status="' .. status .. '"', 0)
        end
        add("broken_streams_total", label, 0)
        add("tokens_total", label, 0)
        for _, bound in ipairs(BUCKETS) do
            add("ttft_seconds_bucket", label .. ',le="' .. bound .. '"', 0)
        end
        add("ttft_seconds_bucket", label .. ',le="+Inf"', 0)
        add("ttft_seconds_sum", label, 0)
        add("ttft_seconds_count", label, 0)
    end
end

function M.request(engine, status)
    add("requests_total", of(engine) .. ',status="' .. status .. '"', 1)
end

function M.refused(reason)
    add("refused_total", 'reason="' .. reason .. '"', 1)
end

function M.retry()
    add("retries_total", nil, 1)
end

function M.broken(engine)
    add("broken_streams_total", of(engine), 1)
end

function M.tokens(engine, count)
    add("tokens_total", of(engine), count)
end

function M.ttft(engine, seconds)
    local label = of(engine)
    for _, bound in ipairs(BUCKETS) do
        if seconds <= bound then
            add("ttft_seconds_bucket", label .. ',le="' .. bound .. '"', 1)
        end
    end
    add("ttft_seconds_bucket", label .. ',le="+Inf"', 1)
    add("ttft_seconds_sum", label, seconds)
    add("ttft_seconds_count", label, 1)
end

local function bound_of(name)
    local bound = string.match(name, 'le="([^"]+)"')
    return bound == "+Inf" and math.huge or tonumber(bound) or 0
end

-- By name, and the buckets of a histogram by their bounds.
local function before(a, b)
    local left, right = string.gsub(a, ',le="[^"]+"', ""), string.gsub(b, ',le="[^"]+"', "")
    if left ~= right then
        return left < right
    end
    return bound_of(a) < bound_of(b)
end

function M.text()
    local values = {}
    local shared = ngx.shared.gateway_metrics
    for _, name in ipairs(shared:get_keys(0)) do
        values[name] = shared:get(name)
    end
    for _, engine in ipairs(config.engines) do
        local state = engines.state(engine)
        local label = of(engine.name)
        values[series("engine_up", label)] = state.up and 1 or 0
        values[series("engine_drained", label)] = state.drained and 1 or 0
        values[series("in_flight", label)] = state.in_flight
        values[series("queued", label)] = state.queued
    end
    local names = {}
    for name in pairs(values) do
        table.insert(names, name)
    end
    table.sort(names, before)
    local lines = {}
    for _, family in ipairs(FAMILIES) do
        local name, kind, help = PREFIX .. family[1], family[2], family[3]
        table.insert(lines, "# HELP " .. name .. " " .. help)
        table.insert(lines, "# TYPE " .. name .. " " .. kind)
        for _, one in ipairs(names) do
            local stem = string.match(one, "^[^{]+")
            if stem == name or kind == "histogram" and string.gsub(string.gsub(string.gsub(stem, "_bucket$", ""), "_sum$", ""), "_count$", "") == name then
                table.insert(lines, one .. " " .. string.format("%.14g", values[one]))
            end
        end
    end
    return table.concat(lines, "\n") .. "\n"
end

return M
