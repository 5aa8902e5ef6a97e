-- The functions that a server calls. `allow-oom` is on those that free memory or need none, so that a
-- full store can still be drained; `no-writes` lets a replica answer.
local function offer(name, callback, flags)
  redis.register_function{function_name = 'presque_@VERSION@_' .. name, callback = callback, flags = flags}
end

offer('push', push, {})
offer('fetch', fetch, {'allow-oom'})
offer('lease', lease, {'allow-oom'})
offer('settle', settle, {'allow-oom'})
offer('show', show, {'no-writes'})
offer('list', list, {'no-writes'})
offer('patch', patch, {'allow-oom'})
offer('remove', remove, {'allow-oom'})
offer('retry', retry, {'allow-oom'})
offer('explain', explain, {'no-writes'})
offer('policy', policy, {'allow-oom'})
offer('unfetch', unfetch, {'allow-oom'})
offer('sweep', sweep, {'allow-oom'})
offer('stats', stats, {'no-writes'})
offer('peek', peek, {'allow-oom'})
offer('control', control, {'allow-oom'})
offer('purge', purge, {'allow-oom'})
offer('register', register, {})
offer('worker_register', worker_register, {})
offer('worker_unregister', worker_unregister, {'allow-oom'})
offer('worker_count', worker_count, {'allow-oom'})
offer('worker_list', worker_list, {'no-writes'})
offer('worker_show', worker_show, {'no-writes'})
