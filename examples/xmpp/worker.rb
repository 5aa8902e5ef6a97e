# A worker over XMPP: ruby worker.rb [QUEUE]. Needs xmpp4r (apt install ruby-xmpp4r).
# The account is in XMPP_JID and XMPP_PASSWORD.
require 'json'
require 'timeout'
require 'xmpp4r'

OURS = 'urn:presque:0'
ADDRESS = "#{ARGV.fetch(0, 'greetings')}@#{ENV.fetch('XMPP_DOMAIN', 'presque.localhost')}"
$stdout.sync = true

def work(job)
  raise 'a greeting needs a name' unless job['name']

  puts "hello, #{job['name']}"
end

def log_in
  client = Jabber::Client.new(Jabber::JID.new(ENV.fetch('XMPP_JID')))
  host, port = ENV.fetch('XMPP_SERVER', '').split(':') # nothing if DNS tells where the server is
  Timeout.timeout(5) do
    client.connect(host, port ? port.to_i : 5222)
    client.auth(ENV.fetch('XMPP_PASSWORD'))
  end
  client
rescue Timeout::Error
  retry # xmpp4r sometimes misses what a quick server says first, and waits for ever
end

client = log_in
client.on_exception { exit 1 } # let what started this worker start it again

client.add_message_callback do |message|
  found = message.first_element('json') or next warn(message.body)
  job = JSON.parse(found.text)
  next warn(found.text) unless job['event'] == 'job'

  settled = { cmd: 'ack', queue: job['queue'], id: job['id'], lease: job['lease'] }
  begin
    work(job['body'])
  rescue StandardError => e
    settled.merge!(cmd: 'fail', error: e.message)
  end
  answer = Jabber::Message.new(message.from)
  answer.add_element('json', 'xmlns' => OURS).text = settled.to_json
  client.send(answer)
end

presence = Jabber::Presence.new
presence.to = ADDRESS
presence.add_element('consume', 'xmlns' => OURS, 'count' => '10', 'seconds' => '60')
client.send(presence)
sleep
