# A worker in Ruby: ruby worker.rb [QUEUE]. Needs nothing that does not come with Ruby.
require 'json'
require 'net/http'

URL = URI(ENV.fetch('PRESQUE_URL', 'http://127.0.0.1:5000'))
QUEUE = ARGV.fetch(0, 'greetings')
$stdout.sync = true

def work(job)
  raise 'a greeting needs a name' unless job['name']

  puts "hello, #{job['name']}"
end

def post(path, body)
  answer = Net::HTTP.start(URL.host, URL.port, read_timeout: 40) { |http| http.post(path, body.to_json) }
  raise "#{path}: #{answer.body}" unless answer.is_a?(Net::HTTPSuccess)

  answer.code == '204' ? { 'jobs' => [] } : JSON.parse(answer.body)
end

loop do
  post("/q/#{QUEUE}/lease", { wait: 20 })['jobs'].each do |leased|
    job, lease = "/j/#{leased['queue']}/#{leased['id']}", leased['lease']
    begin
      work(leased['body'])
    rescue StandardError => e
      next post("#{job}/fail", { lease: lease, error: e.message })
    end
    post("#{job}/ack", { lease: lease })
  end
rescue StandardError => e # the server is away, or the lease is over: what was not acked comes again
  warn e.message
  sleep 1
end
