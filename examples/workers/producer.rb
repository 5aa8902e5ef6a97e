# A producer in Ruby: ruby producer.rb QUEUE NAME... Needs nothing that does not come with Ruby.
require 'json'
require 'net/http'

url = ENV.fetch('PRESQUE_URL', 'http://127.0.0.1:5000')
queue, *people = ARGV

people.each do |name|
  answer = Net::HTTP.post(URI("#{url}/q/#{queue}"), { name: name }.to_json)
  abort answer.body unless answer.is_a?(Net::HTTPSuccess)
  puts JSON.parse(answer.body)['id']
end
