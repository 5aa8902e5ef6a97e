# Pushes a job for each name over XMPP, and prints its id: ruby producer.rb QUEUE NAME… Needs xmpp4r.
require 'json'
require 'timeout'
require 'xmpp4r'

OURS = 'urn:presque:0'
QUEUE, *NAMES = ARGV

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

NAMES.each do |name|
  iq = Jabber::Iq.new(:set, "#{QUEUE}@#{ENV.fetch('XMPP_DOMAIN', 'presque.localhost')}")
  iq.add_element('json', 'xmlns' => OURS).text = { cmd: 'push', job: { name: name } }.to_json
  client.send_with_id(iq) do |answer| # raises ServerError with the reason if it was refused
    puts JSON.parse(answer.first_element('json').text)['id']
  end
end
client.close
